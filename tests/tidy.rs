//! The rules of the code that the compiler does not check. Each names the file and line that breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The layers of `src`, and for each the others that it may name. A layer is a directory or a file of `src`.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("ring", &["base"]),
    ("wire", &["base"]),
    // What was asked for, as plain values: nothing below reads the environment, and nothing here acts.
    ("options", &["base"]),
    ("hub", &["base", "wire", "options"]),
    ("shard", &["base", "ring", "wire", "hub", "options"]),
    ("edge", &["base", "wire", "hub", "options"]),
    ("load", &["base", "ring", "wire"]),
    ("plan", &["base", "load"]),
    (
        "server",
        &["base", "ring", "wire", "hub", "shard", "edge", "options"],
    ),
    ("main", &["options", "server", "load", "plan"]),
    ("lib", &[]),
];

/// Where `unsafe` may stand: the lane, the kernel ring, the buffers.
const UNSAFE: &[&str] = &[
    "src/base/lane.rs",
    "src/ring/kernel.rs",
    "src/ring/buffers.rs",
];

/// The layer that may wait.
const ASYNC: &str = "src/edge/";

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "types", "misc",
];

/// What the top level holds, besides names that begin with a dot.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "benches",
    "perf",
    "src",
    "tests",
];

const LINES_MAX: usize = 600;

/// Files of more than `LINES_MAX` lines, tests not counted, each with the reason why it is one.
const LONG: &[(&str, &str)] = &[
    (
        "src/ring/kernel.rs",
        "every unsafe call of the ring stands in this one file, beside the state that makes it sound",
    ),
    ("src/ring/probe.rs", "a list of checks, each of them short"),
];

#[test]
fn layers_name_only_the_layers_below() {
    let mut faults = Faults::default();
    for file in sources("src") {
        let layer = file.layer();
        let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            faults.add(&file, 1, &format!("`{layer}` is in no layer"));
            continue;
        };
        for (line, named) in file.layers_named() {
            if named != layer && !below.contains(&named.as_str()) {
                faults.add(&file, line, &format!("`{layer}` may not name `{named}`"));
            }
        }
    }
    faults.assert_none("layers");
}

#[test]
fn layers_are_not_named_around_crate() {
    let mut faults = Faults::default();
    for file in sources("src") {
        for (line, text) in file.lines() {
            for (layer, _) in LAYERS {
                let chain = text.contains(&format!("super::super::{layer}::"));
                let sideways = file.is_layer_root() && text.contains(&format!("super::{layer}::"));
                if chain || sideways {
                    faults.add(&file, line, &format!("name `{layer}` as `crate::{layer}`"));
                }
            }
        }
    }
    faults.assert_none("paths");
}

#[test]
fn unsafe_stays_in_its_three_files() {
    let mut faults = Faults::default();
    for file in sources("src") {
        if UNSAFE.contains(&file.path.as_str()) {
            continue;
        }
        for line in file.lines_with_word("unsafe") {
            faults.add(&file, line, "unsafe outside of its files");
        }
    }
    faults.assert_none("unsafe");
}

#[test]
fn async_stays_in_the_edge() {
    let mut faults = Faults::default();
    for file in sources("src") {
        if file.path.starts_with(ASYNC) {
            continue;
        }
        for word in ["async", "await"] {
            for line in file.lines_with_word(word) {
                faults.add(&file, line, &format!("{word} outside of the edge"));
            }
        }
    }
    faults.assert_none("async");
}

#[test]
fn modules_have_names_that_say_something() {
    let mut faults = Faults::default();
    for file in sources("src") {
        for part in file.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&part) {
                faults.add(&file, 1, &format!("`{part}` is not a name"));
            }
        }
        for (line, text) in file.lines() {
            let words: Vec<&str> = text.split_whitespace().collect();
            if let Some(name) = words
                .windows(2)
                .find(|pair| pair[0] == "mod")
                .map(|pair| pair[1])
            {
                let name = name.trim_end_matches([';', '{']);
                if EMPTY_NAMES.contains(&name) {
                    faults.add(&file, line, &format!("`{name}` is not a name"));
                }
            }
        }
    }
    faults.assert_none("names");
}

#[test]
fn the_top_level_holds_what_it_should() {
    let entries: BTreeSet<String> = tracked()
        .into_iter()
        .filter_map(|path| path.split('/').next().map(str::to_string))
        .collect();
    let strangers: Vec<&String> = entries
        .iter()
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    assert!(
        strangers.is_empty(),
        "not at home at the top level: {strangers:?}"
    );
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let mut faults = Faults::default();
    for file in sources("src") {
        if !file.text.starts_with("//! ") {
            faults.add(&file, 1, "the first line is not `//! ...`");
        }
    }
    faults.assert_none("first lines");
}

#[test]
fn unwrap_stays_in_tests() {
    let mut faults = Faults::default();
    for file in sources("src").into_iter().chain(sources("perf")) {
        for (line, text) in file.lines_outside_tests() {
            if text.contains(".unwrap()") {
                faults.add(&file, line, "unwrap: say with `expect` why it cannot fail");
            }
        }
    }
    faults.assert_none("unwrap");
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let mut faults = String::new();
    let mut is_in_dependencies = false;
    let mut above = "";
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            is_in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
        } else if is_in_dependencies
            && line.contains('=')
            && !line.starts_with([' ', '#', ']', '}'])
            && !above.starts_with("# ")
        {
            let name = line.split('=').next().unwrap_or(line).trim();
            writeln!(faults, "Cargo.toml:{}: {name}", index + 1).expect("a string takes all");
        }
        above = line;
    }
    assert!(
        faults.is_empty(),
        "dependencies without a comment above them:\n{faults}"
    );
}

#[test]
fn files_are_short_or_say_why_not() {
    let mut faults = Faults::default();
    let mut long = BTreeMap::new();
    for file in sources("src") {
        let lines = file.lines_outside_tests().count();
        if lines > LINES_MAX {
            long.insert(file.path.clone(), lines);
            if !LONG.iter().any(|(path, _)| *path == file.path) {
                faults.add(
                    &file,
                    1,
                    &format!("{lines} lines without tests, more than {LINES_MAX}"),
                );
            }
        }
    }
    for (path, reason) in LONG {
        assert!(!reason.is_empty(), "{path} is listed without a reason");
        assert!(
            long.contains_key(*path),
            "{path} is listed as long and is not: take it off"
        );
    }
    faults.assert_none("length");
}

#[test]
fn the_checks_see_code_and_not_comments_or_text() {
    let file = Source::new(
        "src/hub/mod.rs",
        r####"//! Tests' own example: crate::ring
/* unsafe /* nested */ async */
use crate::{base::{lane, slab}, wire::{self}};
const A: &str = "unsafe \" crate::ring"; const B: char = '"'; const C: &str = r#"async "#;
fn life<'a>(x: &'a str) -> &'a str { crate::shard::run(x) }
#[cfg(test)]
mod tests {
    fn f() { Some("}").unwrap(); }
}
fn after() {}
"####,
    );
    let named: Vec<(usize, String)> = file.layers_named().collect();
    let expected =
        [(3, "base"), (3, "wire"), (5, "shard")].map(|(line, name)| (line, name.to_string()));
    assert_eq!(named, expected);
    assert_eq!(file.lines_with_word("unsafe").count(), 0);
    assert_eq!(file.lines_with_word("async").count(), 0);
    assert!(
        file.lines_outside_tests()
            .all(|(_, text)| !text.contains("unwrap"))
    );
    assert!(
        file.lines_outside_tests()
            .any(|(line, text)| line == 10 && text.contains("after"))
    );
    assert_eq!(file.layer(), "hub");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the repository, new ones included and ignored ones not.
fn tracked() -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    assert!(
        git.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&git.stderr)
    );
    let listing = String::from_utf8(git.stdout).expect("our paths are UTF-8");
    // A file that is deleted and not yet committed is still listed.
    listing
        .lines()
        .filter(|path| root().join(path).exists())
        .map(str::to_string)
        .collect()
}

/// Every Rust file below `directory`, in order.
fn sources(directory: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(next) = directories.pop() {
        let Ok(entries) = fs::read_dir(&next) else {
            assert!(directory != "src", "no {}", next.display());
            continue;
        };
        for entry in entries {
            let path = entry.expect("a directory that can be read").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let mut files: Vec<Source> = paths.iter().map(|path| Source::read(path)).collect();
    let of_tests: Vec<PathBuf> = files.iter().flat_map(Source::test_modules).collect();
    for file in &mut files {
        let path = Path::new(&file.path);
        file.is_test = of_tests
            .iter()
            .any(|module| path == module.with_extension("rs") || path.starts_with(module));
    }
    files
}

/// One file: its text, and the same text with comments, strings and characters blanked.
struct Source {
    path: String,
    text: String,
    code: String,
    /// Only compiled for tests.
    is_test: bool,
}

impl Source {
    fn read(path: &Path) -> Source {
        let relative = path.strip_prefix(root()).expect("below the root");
        let text = fs::read_to_string(path).expect("a source file is UTF-8");
        Source::new(relative.to_str().expect("our paths are UTF-8"), &text)
    }

    fn new(path: &str, text: &str) -> Source {
        Source {
            path: path.to_string(),
            text: text.to_string(),
            code: blank(text),
            is_test: false,
        }
    }

    /// `src/hub/log.rs` is in `hub`, `src/main.rs` in `main`.
    fn layer(&self) -> &str {
        let below = self.path.trim_start_matches("src/");
        let first = below.split('/').next().unwrap_or(below);
        first.trim_end_matches(".rs")
    }

    /// From here `super` is the crate's root.
    fn is_layer_root(&self) -> bool {
        let parts = self.path.split('/').count();
        parts == 2 || (parts == 3 && self.path.ends_with("/mod.rs"))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    fn lines_with_word<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let has_word = move |text: &str| {
            text.split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|part| part == word)
        };
        self.lines()
            .filter(move |(_, text)| has_word(text))
            .map(|(line, _)| line)
    }

    /// Lines that are compiled without tests.
    fn lines_outside_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let inside = self.test_items();
        self.lines()
            .filter(move |(line, _)| !self.is_test && !inside.contains(line))
    }

    /// The lines of items under `#[cfg(test)]` and the like.
    fn test_items(&self) -> BTreeSet<usize> {
        let mut inside = BTreeSet::new();
        for start in self.test_attributes() {
            let end = item_end(&self.code[start..]) + start;
            inside.extend(self.line_of(start)..=self.line_of(end));
        }
        inside
    }

    fn test_attributes(&self) -> impl Iterator<Item = usize> {
        let attributes = self.code.match_indices("#[cfg(").map(|(start, _)| start);
        attributes.filter(|start| {
            let end = self.code[*start..]
                .find(']')
                .map_or(self.code.len(), |length| start + length);
            let condition = &self.code[*start..end];
            condition.contains("test") && !condition.contains("not(test")
        })
    }

    /// Modules in files of their own that are declared for tests alone, without their extension.
    fn test_modules(&self) -> Vec<PathBuf> {
        let path = Path::new(&self.path);
        let directory = path.parent().expect("a file is in a directory");
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a file has a name");
        let home = if matches!(stem, "mod" | "lib" | "main") {
            directory.to_path_buf()
        } else {
            directory.join(stem)
        };
        let declared = self.test_attributes().filter_map(|start| {
            let item = &self.code[start..start + item_end(&self.code[start..])];
            let name = item.split_once("mod ")?.1.trim();
            (!name.contains('{')).then(|| home.join(name))
        });
        declared.collect()
    }

    /// Each layer that is named through `crate::`, or in `main` through the crate's own name.
    fn layers_named(&self) -> impl Iterator<Item = (usize, String)> {
        let roots: &[&str] = if self.layer() == "main" {
            &["crate::", "outpour::"]
        } else {
            &["crate::"]
        };
        let mut named = Vec::new();
        for root in roots {
            for (start, _) in self.code.match_indices(root) {
                let line = self.line_of(start);
                for name in first_names(&self.code[start + root.len()..]) {
                    named.push((line, name));
                }
            }
        }
        // `crate::Thing` is an item of lib.rs, which holds no items of its own: modules are in lower case.
        named
            .into_iter()
            .filter(|(_, name)| name.starts_with(|c: char| c.is_lowercase()))
    }

    fn line_of(&self, offset: usize) -> usize {
        self.code[..offset.min(self.code.len())]
            .matches('\n')
            .count()
            + 1
    }
}

/// The first names of a path or of a group of paths: `base` and `wire` of `{base::{lane, slab}, wire}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        let end = path
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(path.len());
        return vec![path[..end].to_string()];
    };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut member = String::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(std::mem::take(&mut member)),
            _ => member.push(c),
        }
    }
    names.push(member);
    let first = |member: String| member.split("::").next().unwrap_or("").trim().to_string();
    names
        .into_iter()
        .map(first)
        .filter(|name| !name.is_empty())
        .collect()
}

/// Where the item ends that begins with an attribute: at the brace that closes its first one, or at a semicolon before.
fn item_end(code: &str) -> usize {
    let mut depth = 0;
    for (offset, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return offset,
            '}' => depth -= 1,
            ';' if depth == 0 => return offset,
            _ => {}
        }
    }
    code.len()
}

/// The text with the insides of comments, strings and characters as spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let mut blanked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = comment(rest)
            .or_else(|| string(rest))
            .or_else(|| character(rest));
        let Some(length) = length else {
            // An identifier is taken whole, so that the r of `for"` is not taken for a raw string's.
            let word = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let length = word.max(next.len_utf8());
            blanked.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        };
        blanked.extend(
            rest[..length]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' }),
        );
        rest = &rest[length..];
    }
    blanked
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let mut depth = 0;
    let mut offset = 0;
    while offset < rest.len() {
        if rest[offset..].starts_with("/*") {
            depth += 1;
            offset += 2;
        } else if rest[offset..].starts_with("*/") {
            depth -= 1;
            offset += 2;
            if depth == 0 {
                return Some(offset);
            }
        } else {
            offset += rest[offset..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

fn string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let after = rest
            .strip_prefix(prefix)
            .map(|after| after.trim_start_matches('#'));
        let is_quoted = after.is_some_and(|after| after.starts_with('"'));
        is_quoted && (prefix.ends_with('r') || rest[prefix.len()..].starts_with('"'))
    })?;
    let hashes = rest[prefix.len()..]
        .bytes()
        .take_while(|byte| *byte == b'#')
        .count();
    let begin = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let close = format!("\"{}", "#".repeat(hashes));
        return Some(
            rest[begin..]
                .find(&close)
                .map_or(rest.len(), |length| begin + length + close.len()),
        );
    }
    let mut is_escaped = false;
    for (offset, c) in rest[begin..].char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some(begin + offset + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// A character or a byte, and not a lifetime: those have no closing quote after one character.
fn character(rest: &str) -> Option<usize> {
    let begin = if rest.starts_with("b'") {
        2
    } else if rest.starts_with('\'') {
        1
    } else {
        return None;
    };
    let first = rest[begin..].chars().next()?;
    if first == '\\' {
        let after = begin + 2;
        return rest
            .get(after..)?
            .find('\'')
            .map(|length| after + length + 1);
    }
    let close = begin + first.len_utf8();
    rest[close..].starts_with('\'').then_some(close + 1)
}

#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, file: &Source, line: usize, what: &str) {
        writeln!(self.0, "{}:{line}: {what}", file.path).expect("a string takes all");
    }

    fn assert_none(self, what: &str) {
        assert!(self.0.is_empty(), "{what}:\n{}", self.0);
    }
}
