//! The command line: argv to a [`Command`], with one flag for each setting of the table.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, value_parser};

use super::layer::{CONFIG_VARIABLE, Flags};
use super::report::default_for_reading;
use super::table::{Options, SETTINGS, Setting};

/// What the process was called for.
pub enum Command {
    Serve(Flags),
    /// Print the options and where they come from.
    Config(Flags),
    /// Print the documentation of the options.
    ConfigMarkdown,
    Doctor(Flags),
    /// Generate load; the words after `bench` are read by the generator's own command line.
    Bench(Vec<OsString>),
    /// Look at the journal in a directory, or repair it.
    Journal {
        work: JournalWork,
        directory: PathBuf,
    },
}

/// What is to be done with a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalWork {
    Verify,
    Dump,
    Repair,
}

/// Reads the command line, the program's name first. The error is clap's, which also stands for
/// help and version; it knows where to print itself and which status to exit with.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Command, clap::Error> {
    let matches = program().try_get_matches_from(arguments)?;
    let (name, matches) = matches.subcommand().expect("clap insists on a subcommand");
    if name == BENCH {
        let words = matches.get_many::<OsString>(WORDS).unwrap_or_default();
        return Ok(Command::Bench(words.cloned().collect()));
    }
    if name == JOURNAL {
        return Ok(journal(matches));
    }
    let flags = flags(matches);
    Ok(match name {
        SERVE => Command::Serve(flags),
        CONFIG if matches.get_flag(MARKDOWN) => Command::ConfigMarkdown,
        CONFIG => Command::Config(flags),
        DOCTOR => Command::Doctor(flags),
        other => unreachable!("clap knows no subcommand {other}"),
    })
}

const SERVE: &str = "serve";
const CONFIG: &str = "config";
const DOCTOR: &str = "doctor";
const BENCH: &str = "bench";
const JOURNAL: &str = "journal";
const VERIFY: &str = "verify";
const DUMP: &str = "dump";
const REPAIR: &str = "repair";
const DIRECTORY: &str = "directory";

/// What follows `bench`.
const WORDS: &str = "words";

/// The flag of the file, and the hidden one of the documentation.
const CONFIG_FLAG: &str = "config";
const MARKDOWN: &str = "markdown";

fn program() -> clap::Command {
    let markdown = Arg::new(MARKDOWN)
        .long(MARKDOWN)
        .hide(true)
        .action(ArgAction::SetTrue);
    clap::Command::new("outpour")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(
            "Settings come from defaults, a TOML file (--config PATH), the environment (OUTPOUR_*) \
             and flags; the later win. `outpour serve --help` lists them.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(with_settings(SERVE, "Run the server"))
        .subcommand(
            with_settings(
                CONFIG,
                "Print each setting, its value and where it comes from",
            )
            .arg(markdown),
        )
        .subcommand(with_settings(
            DOCTOR,
            "Check whether this machine can run the server",
        ))
        .subcommand(journal_program())
        .subcommand(bench())
}

/// Its settings are no settings of a server, so all words go through as they are, `--help` too.
fn bench() -> clap::Command {
    let words = Arg::new(WORDS)
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(value_parser!(OsString));
    clap::Command::new(BENCH)
        .about("Measure a server under load; without arguments, the canonical run")
        .disable_help_flag(true)
        .arg(words)
}

fn journal_program() -> clap::Command {
    let work = |name: &'static str, about: &'static str| {
        let directory = Arg::new(DIRECTORY)
            .value_name("DIRECTORY")
            .required(true)
            .value_parser(value_parser!(PathBuf));
        clap::Command::new(name).about(about).arg(directory)
    };
    clap::Command::new(JOURNAL)
        .about("Look at the journal of durable channels, or repair it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(work(
            VERIFY,
            "Read everything and list what is damaged; fails if anything is",
        ))
        .subcommand(work(DUMP, "Print each record as a line of JSON"))
        .subcommand(work(
            REPAIR,
            "Write damaged files anew with all that can be read, and keep the old ones",
        ))
}

fn journal(matches: &ArgMatches) -> Command {
    let (name, matches) = matches.subcommand().expect("clap insists on a subcommand");
    let work = match name {
        VERIFY => JournalWork::Verify,
        DUMP => JournalWork::Dump,
        REPAIR => JournalWork::Repair,
        other => unreachable!("clap knows no subcommand {other}"),
    };
    let directory = matches.get_one::<PathBuf>(DIRECTORY);
    Command::Journal {
        work,
        directory: directory.expect("clap insists on it").clone(),
    }
}

fn with_settings(name: &'static str, about: &'static str) -> clap::Command {
    let defaults = Options::default();
    let file = Arg::new(CONFIG_FLAG)
        .long(CONFIG_FLAG)
        .value_name("PATH")
        .help(format!("The settings' file, in TOML [{CONFIG_VARIABLE}]"));
    let settings = SETTINGS.iter().map(|setting| flag(setting, &defaults));
    clap::Command::new(name)
        .about(about)
        .next_line_help(true)
        .arg(file)
        .args(settings)
}

fn flag(setting: &'static Setting<Options>, defaults: &Options) -> Arg {
    let default = default_for_reading(setting, defaults);
    let help = format!(
        "{}\nAccepts {} [default: {default}] [{}]",
        setting.help(),
        setting.accepts(),
        setting.variable(),
    );
    let flag = Arg::new(setting.name)
        .long(setting.flag())
        .value_name("VALUE")
        .help_heading(setting.group)
        .allow_negative_numbers(true)
        .help(help);
    match setting.bare() {
        Some(meaning) => flag.num_args(0..=1).default_missing_value(meaning),
        None => flag,
    }
}

fn flags(matches: &ArgMatches) -> Flags {
    let settings = SETTINGS.iter().enumerate();
    let stated = |(index, setting): (usize, &Setting<Options>)| {
        let text = matches.get_one::<String>(setting.name)?;
        Some((index, text.clone()))
    };
    Flags {
        config: matches.get_one::<String>(CONFIG_FLAG).cloned(),
        settings: settings.filter_map(stated).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault_with_the_flags() {
        program().debug_assert();
    }

    #[test]
    fn a_switch_may_stand_alone_and_a_negative_number_is_a_value() {
        let arguments = [
            "outpour",
            "serve",
            "--client-events",
            "--metrics",
            "--shards",
            "-1",
        ];
        let Ok(Command::Serve(flags)) = parse(arguments) else {
            panic!("not served");
        };
        let text = |name: &str| {
            let stated = |(index, _): &&(usize, String)| SETTINGS[*index].name == name;
            flags
                .settings
                .iter()
                .find(stated)
                .map(|(_, text)| text.as_str())
        };
        assert_eq!(text("client_events"), Some("on"));
        assert_eq!(text("metrics"), Some("on"));
        assert_eq!(text("shards"), Some("-1"));
        assert_eq!(flags.settings.len(), 3);
    }

    #[test]
    fn all_words_after_bench_go_through() {
        let arguments = [
            "outpour", "bench", "fanout", "--help", "--rate", "5", "--", "-x",
        ];
        let Ok(Command::Bench(words)) = parse(arguments) else {
            panic!("not benched");
        };
        assert_eq!(words, ["fanout", "--help", "--rate", "5", "--", "-x"]);
        assert!(
            matches!(parse(["outpour", "bench"]), Ok(Command::Bench(words)) if words.is_empty())
        );
    }

    #[test]
    fn a_journal_is_named_by_its_directory() {
        let work = |word: &str| match parse(["outpour", "journal", word, "/a"]) {
            Ok(Command::Journal { work, directory }) => Some((work, directory)),
            Ok(_) | Err(_) => None,
        };
        let directory = PathBuf::from("/a");
        assert_eq!(
            work("verify"),
            Some((JournalWork::Verify, directory.clone()))
        );
        assert_eq!(work("repair"), Some((JournalWork::Repair, directory)));
        assert_eq!(work("other"), None);
        assert!(parse(["outpour", "journal", "dump"]).is_err());
    }

    #[test]
    fn without_a_command_there_is_help_and_an_unknown_flag_is_an_error() {
        use clap::error::ErrorKind;
        let kind = |arguments: &[&str]| parse(arguments).map_err(|error| error.kind()).err();
        let missing = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        assert_eq!(kind(&["outpour"]), Some(missing));
        assert_eq!(kind(&["outpour", "--help"]), Some(ErrorKind::DisplayHelp));
        assert_eq!(
            kind(&["outpour", "--version"]),
            Some(ErrorKind::DisplayVersion)
        );
        assert_eq!(
            kind(&["outpour", "serve", "--shard", "1"]),
            Some(ErrorKind::UnknownArgument)
        );
    }
}
