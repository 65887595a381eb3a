//! Channels as numbers: what is kept of each lies in tables, and a name is held once.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// The channels that are named, with small numbers.
#[derive(Debug, Default)]
pub struct Names {
    hasher: RandomState,
    table: HashTable<u32>,
    names: Vec<Name>,
    free: Vec<u32>,
}

/// The app's id and the channel.
type Name = (Box<str>, Box<str>);

impl Names {
    /// The number of a channel of an app.
    pub fn number(&mut self, app_id: &str, channel: &str) -> u32 {
        let hash = self.hasher.hash_one((app_id, channel));
        let names = &self.names;
        let found = self.table.find(hash, |number| {
            let (app, name) = &names[*number as usize];
            **name == *channel && **app == *app_id
        });
        if let Some(number) = found {
            return *number;
        }
        let name = (app_id.into(), channel.into());
        let number = match self.free.pop() {
            Some(number) => {
                self.names[number as usize] = name;
                number
            }
            None => {
                self.names.push(name);
                self.names.len() as u32 - 1
            }
        };
        let (names, hasher) = (&self.names, &self.hasher);
        self.table.insert_unique(hash, number, |number| {
            let (app, name) = &names[*number as usize];
            hasher.hash_one((&**app, &**name))
        });
        number
    }

    /// The app's id and the channel.
    pub fn name(&self, number: u32) -> (&str, &str) {
        let (app, name) = &self.names[number as usize];
        (app, name)
    }

    /// The number stands for nothing any more, until it is given again.
    pub fn forget(&mut self, number: u32) {
        let (app, name) = &self.names[number as usize];
        let hash = self.hasher.hash_one((&**app, &**name));
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == number) {
            entry.remove();
            self.names[number as usize] = Name::default();
            self.free.push(number);
        }
    }

    pub fn length(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_number() {
        let mut names = Names::default();
        let pairs: Vec<(String, String)> = (0..500)
            .map(|number| ((number % 2).to_string(), (number / 2).to_string()))
            .collect();
        for round in 0..2 {
            for (number, (app, channel)) in (0..).zip(&pairs) {
                assert_eq!(names.number(app, channel), number, "round {round}");
                assert_eq!(names.name(number), (&**app, &**channel));
            }
        }
    }

    #[test]
    fn a_forgotten_number_is_given_again() {
        let mut names = Names::default();
        assert_eq!((names.number("1", "a"), names.number("1", "b")), (0, 1));
        names.forget(0);
        names.forget(0);
        assert_eq!((names.length(), names.number("1", "b")), (1, 1));
        assert_eq!((names.number("1", "c"), names.name(0)), (0, ("1", "c")));
        assert_eq!(names.number("1", "a"), 2);
    }
}
