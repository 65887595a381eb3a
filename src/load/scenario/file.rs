//! A scenario file: TOML whose keys are the scenario's flags, with `_` for `-`.
//!
//! ```toml
//! scenario = "fanout"
//! channels = 10
//! subscribers = 500
//! rate = 200
//! ```
//!
//! It is read into words of a command line, ahead of those that were typed, so that a flag wins over
//! the file and every setting is described in one place.

use toml::{Table, Value};

/// The key that says which scenario it is.
const SCENARIO: &str = "scenario";

#[derive(Debug, PartialEq, Eq)]
pub struct ScenarioFile {
    pub scenario: Option<String>,
    pub settings: Vec<Setting>,
}

/// One key of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    /// As its flag takes them.
    pub words: Vec<String>,
}

impl ScenarioFile {
    /// Reads a file's text. The error names the line or the key.
    pub fn parse(text: &str) -> Result<ScenarioFile, String> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| error.to_string())?;
        let mut file = ScenarioFile {
            scenario: None,
            settings: Vec::new(),
        };
        for (key, value) in table {
            if key == SCENARIO {
                let Value::String(name) = value else {
                    return Err(format!("`{key}` is the name of a scenario, in quotes"));
                };
                file.scenario = Some(name);
                continue;
            }
            let words = words(&key, &value)?;
            file.settings.push(Setting { key, words });
        }
        Ok(file)
    }

    /// All settings as a command line.
    pub fn words(&self) -> impl Iterator<Item = &String> {
        self.settings.iter().flat_map(|setting| &setting.words)
    }
}

fn words(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let flag = format!("--{}", key.replace('_', "-"));
    match value {
        Value::Boolean(true) => Ok(vec![flag]),
        Value::Boolean(false) => Ok(Vec::new()),
        // A table is given value by value: `set = { log_bytes_max = 65536 }`.
        Value::Table(table) => table
            .iter()
            .map(|(name, value)| Ok(format!("{flag}={name}={}", plain(key, value)?)))
            .collect(),
        Value::Array(list) => {
            let list: Result<Vec<String>, String> =
                list.iter().map(|value| plain(key, value)).collect();
            Ok(vec![format!("{flag}={}", list?.join(","))])
        }
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Datetime(_) => {
            Ok(vec![format!("{flag}={}", plain(key, value)?)])
        }
    }
}

fn plain(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(switch) => Ok(switch.to_string()),
        Value::Datetime(_) => Err(format!("`{key}` is no date")),
        Value::Array(_) | Value::Table(_) => Err(format!("`{key}` is nested too deeply")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_flags() {
        let text = "scenario = 'slow'\ndata_bytes = 64\nrate = 2.5\nquiet = true\nreport = 'a b'\n\
                    server_cores = [0, 1]\nset = { shards = 2, client_events = false }\n";
        let file = ScenarioFile::parse(text).unwrap();
        assert_eq!(file.scenario.as_deref(), Some("slow"));
        let mut words: Vec<&String> = file.words().collect();
        words.sort();
        let expected = [
            "--data-bytes=64",
            "--quiet",
            "--rate=2.5",
            "--report=a b",
            "--server-cores=0,1",
            "--set=client_events=false",
            "--set=shards=2",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |text: &str, part: &str| {
            let error = ScenarioFile::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        };
        refused("rate = [[1]]", "`rate` is nested too deeply");
        refused("rate = 2026-01-01", "`rate` is no date");
        refused("scenario = 3", "`scenario` is the name of a scenario");
        refused("rate = 1\nrate = 2", "rate");
        refused("a b", "line 1");
    }
}
