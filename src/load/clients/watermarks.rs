//! When messages of one channel came to the first, the middle and the last of its clients.
//!
//! Every client is a position: how many messages it has. For each position the number of clients there is
//! kept, and three marks move over them: the frontier (the furthest client), the low mark (the last one) and
//! the median mark, which knows how many clients are ahead of it. A receive moves one client; each mark passes each
//! message once. So a receive costs the same however many clients there are, and nothing is sampled.

use std::collections::VecDeque;

/// Messages of one channel whose receipts are kept: 24 bytes each.
pub const RECEIPTS_MAX: usize = 2 << 20;

#[derive(Debug, Default)]
pub struct Watermarks {
    clients: u64,
    /// Clients that took part until now, those that left included.
    joined: u64,
    messages: u64,
    /// The number of clients at each position from `low` on.
    at: VecDeque<u32>,
    low: usize,
    frontier: usize,
    median: usize,
    /// Clients at positions beyond `median`.
    ahead: u64,
    first_ns: Vec<u64>,
    median_ns: Vec<u64>,
    last_ns: Vec<u64>,
}

impl Watermarks {
    /// A client that has nothing yet.
    pub fn join(&mut self) {
        assert_eq!(self.low, 0, "all of them begin together");
        if self.at.is_empty() {
            self.at.push_back(0);
        }
        self.at[0] += 1;
        self.clients += 1;
        self.joined += 1;
    }

    /// A client receives the messages `from..to`.
    pub fn advance(&mut self, from: u32, to: u32, now_ns: u64) {
        let (from, to) = (from as usize, to as usize);
        assert!(self.low <= from && from < to, "a client does not go back");
        if self.at.len() <= to - self.low {
            self.at.resize(to - self.low + 1, 0);
        }
        self.at[from - self.low] -= 1;
        self.at[to - self.low] += 1;
        self.messages += (to - from) as u64;
        while self.frontier < to {
            keep(&mut self.first_ns, now_ns);
            self.frontier += 1;
        }
        if from <= self.median && self.median < to {
            self.ahead += 1;
        }
        self.settle(now_ns);
    }

    /// A client with `position` messages gets no more.
    pub fn leave(&mut self, position: u32, now_ns: u64) {
        let position = position as usize;
        self.at[position - self.low] -= 1;
        self.clients -= 1;
        if position > self.median {
            self.ahead -= 1;
        }
        self.settle(now_ns);
    }

    /// Moves the marks over what they have passed.
    fn settle(&mut self, now_ns: u64) {
        if self.clients == 0 {
            return;
        }
        while 2 * self.ahead >= self.clients {
            keep(&mut self.median_ns, now_ns);
            self.median += 1;
            let here = self
                .median
                .checked_sub(self.low)
                .map(|place| self.at[place]);
            self.ahead -= u64::from(here.unwrap_or(0));
        }
        while self.low < self.frontier && self.at[0] == 0 {
            keep(&mut self.last_ns, now_ns);
            self.at.pop_front();
            self.low += 1;
        }
    }

    pub fn clients(&self) -> u64 {
        self.clients
    }

    pub fn joined(&self) -> u64 {
        self.joined
    }

    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// What the client that is furthest behind has, and the one that is furthest ahead.
    pub fn range(&self) -> (u64, u64) {
        (self.low as u64, self.frontier as u64)
    }

    /// Message by message, as far as they came; the longest is that of the first.
    pub fn receipts(&self) -> [&[u64]; 3] {
        [&self.first_ns, &self.median_ns, &self.last_ns]
    }

    /// Messages that no receipts are kept of.
    pub fn beyond(&self) -> u64 {
        (self.frontier - self.first_ns.len()) as u64
    }
}

fn keep(receipts: &mut Vec<u64>, now_ns: u64) {
    if receipts.len() < RECEIPTS_MAX {
        receipts.push(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks at all clients for every message.
    #[derive(Default)]
    struct Naive {
        positions: Vec<Option<u32>>,
        receipts: [Vec<u64>; 3],
    }

    impl Naive {
        fn look(&mut self, now_ns: u64) {
            let here: Vec<u32> = self.positions.iter().flatten().copied().collect();
            let beyond = |message: usize| here.iter().filter(|at| **at as usize > message).count();
            let [first, median, last] = &mut self.receipts;
            while beyond(first.len()) > 0 {
                first.push(now_ns);
            }
            while !here.is_empty() && 2 * beyond(median.len()) >= here.len() {
                median.push(now_ns);
            }
            // Nobody waits for what a client had that is gone, unless another had it too.
            while !here.is_empty() && last.len() < first.len() && beyond(last.len()) == here.len() {
                last.push(now_ns);
            }
        }
    }

    proptest! {
        #[test]
        fn marks_are_where_a_look_at_all_clients_puts_them(
            clients in 1_usize..9,
            steps in prop::collection::vec((any::<prop::sample::Index>(), 1_u32..5, 0..20_u8), 0..120),
        ) {
            let mut marks = Watermarks::default();
            let mut naive = Naive { positions: vec![Some(0); clients], ..Naive::default() };
            for _ in 0..clients {
                marks.join();
            }
            for (now_ns, (client, messages, die)) in (1..).zip(steps) {
                let position = &mut naive.positions[client.index(clients)];
                let Some(from) = *position else { continue };
                if die == 0 {
                    *position = None;
                    marks.leave(from, now_ns);
                } else {
                    *position = Some(from + messages);
                    marks.advance(from, from + messages, now_ns);
                }
                naive.look(now_ns);
                let left = naive.positions.iter().flatten();
                prop_assert_eq!(marks.clients(), left.clone().count() as u64);
                if let (Some(min), Some(max)) = (left.clone().min(), left.max()) {
                    prop_assert_eq!(marks.range().0, u64::from(*min));
                    prop_assert!(marks.range().1 >= u64::from(*max));
                }
                let receipts = marks.receipts().map(<[u64]>::to_vec);
                prop_assert_eq!(&receipts, &naive.receipts);
            }
        }
    }

    #[test]
    fn the_middle_of_four_is_the_second() {
        let mut marks = Watermarks::default();
        (0..4).for_each(|_| marks.join());
        for now_ns in 1..=4 {
            marks.advance(0, 1, now_ns);
        }
        assert_eq!(marks.receipts(), [&[1], &[2], &[4]]);
        assert_eq!((marks.messages(), marks.range()), (4, (1, 1)));
    }
}
