//! The four layers from outside: argv, variables and a file's text in, options or an error out.

use std::io;
use std::path::Path;

use super::command_line::{Command, parse};
use super::form::Kind;
use super::*;

/// What a test types.
#[derive(Default)]
struct Typed<'a> {
    file: &'a str,
    variables: &'a [(&'a str, &'a str)],
    arguments: &'a [&'a str],
}

fn loaded(typed: Typed<'_>) -> Result<Loaded, OptionsError> {
    let arguments = ["outpour", "serve"].iter().chain(typed.arguments);
    let Ok(Command::Serve(mut flags)) = parse(arguments.copied()) else {
        panic!("clap refuses {:?}", typed.arguments);
    };
    if !typed.file.is_empty() {
        flags.config = Some("outpour.toml".to_string());
    }
    let own = |(name, text): &(&str, &str)| (name.to_string(), text.to_string());
    load(flags, typed.variables.iter().map(own), |_| {
        Ok(typed.file.to_string())
    })
}

#[track_caller]
fn check_error(typed: Typed<'_>, expected: &str) {
    let error = loaded(typed).expect_err("is refused").to_string();
    assert_eq!(error, expected);
}

#[test]
fn each_layer_wins_over_the_one_before_for_every_setting() {
    for (index, setting) in SETTINGS.iter().enumerate() {
        let [in_file, in_variable, in_flag] = samples(setting);
        let quoted = match setting.takes(Kind::Integer) && in_file.parse::<u64>().is_ok() {
            true => in_file.clone(),
            false => format!("{in_file:?}"),
        };
        let file = format!("\n{} = {quoted}\n", setting.name);
        let variable = setting.variable();
        let variables = [("PATH", "/bin"), (variable.as_str(), in_variable.as_str())];
        let argument = format!("--{}={in_flag}", setting.flag());
        let arguments = [argument.as_str()];

        let check = |typed: Typed<'_>, text: Option<&str>, origin: &str| {
            let loaded = loaded(typed).unwrap_or_else(|error| panic!("{}: {error}", setting.name));
            let mut expected = Options::default();
            assert!(text.is_none_or(|text| setting.set(&mut expected, text)));
            assert_eq!(
                setting.print(&loaded.options),
                setting.print(&expected),
                "{} from {origin}",
                setting.name
            );
            assert_eq!(
                loaded.origins[index].to_string(),
                origin,
                "{}",
                setting.name
            );
        };
        check(Typed::default(), None, "default");
        check(
            Typed {
                file: &file,
                ..Typed::default()
            },
            Some(&in_file),
            "file outpour.toml:2",
        );
        check(
            Typed {
                file: &file,
                variables: &variables,
                arguments: &[],
            },
            Some(&in_variable),
            &format!("environment {variable}"),
        );
        check(
            Typed {
                file: &file,
                variables: &variables,
                arguments: &arguments,
            },
            Some(&in_flag),
            &format!("flag --{}", setting.flag()),
        );
    }
}

/// Three values of which each differs from the one before, and the first from the default. Numbers
/// go down from the default where they can: that way none crosses a bound that another one sets.
fn samples(setting: &Setting<Options>) -> [String; 3] {
    let texts = match setting.name {
        "address" => ["7001", "127.0.0.1:7002", "[::1]:7003"],
        "path_prefix" | "http_path" => ["/file", "/variable", "/flag"],
        "metrics" => ["on", "off", "auto"],
        "cores" => ["none", "0-3", "1,5"],
        "log_level" => ["debug", "warn", "off"],
        "durability" => ["disk", "memory", "disk"],
        "slow" => ["latest", "latest-per-key", "disconnect"],
        "journal_directory" => ["/file", "variable", "/a b"],
        "echo" => ["/file", "/variable", "/flag"],
        "app_id" => ["2001", "2002", "2003"],
        "app_key" => ["file", "variable", "flag"],
        "app_secret" => [
            "secret-of-the-file",
            "other-of-the-variable",
            "third-of-the-flag",
        ],
        "client_events" | "compression" => ["off", "on", "false"],
        "webhook_url" => ["http://file/", "http://variable/", "https://flag:8/a"],
        "webhook_events" => ["channel_occupied", "cache_miss,client_event", "all"],
        "compat" => ["soketi", "pusher", "soketi"],
        "authorized_connections" | "subscription_counts" | "slow_by_subscription" => {
            ["on", "off", "true"]
        }
        _ => {
            let default: u64 = setting.print(&Options::default()).parse().unwrap_or(0);
            let sample = |step: u64| match default {
                0 => step.to_string(),
                _ => (default - step).to_string(),
            };
            return [1, 2, 3].map(sample);
        }
    };
    texts.map(str::to_string)
}

#[test]
fn a_flag_names_another_file_than_the_environment_does() {
    let read = |path: &Path| match path.to_str() {
        Some("flag.toml") => Ok("spin_us = 1".to_string()),
        Some("variable.toml") => Ok("spin_us = 2".to_string()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let variable = |path: &str| [("OUTPOUR_CONFIG".to_string(), path.to_string())];
    let flag = Flags {
        config: Some("flag.toml".to_string()),
        ..Flags::default()
    };
    let of_flag = load(flag, variable("variable.toml"), read).unwrap();
    assert_eq!(of_flag.options.spin_us, 1);
    let of_variable = load(Flags::default(), variable("variable.toml"), read).unwrap();
    assert_eq!(of_variable.options.spin_us, 2);
    let error = load(Flags::default(), variable("none.toml"), read).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read none.toml (environment OUTPOUR_CONFIG): entity not found"
    );
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_known_one() {
    check_error(
        Typed {
            file: "spin_us = 0\nadress = 1",
            ..Typed::default()
        },
        "unknown key adress (file outpour.toml:2); the nearest known one is address",
    );
    check_error(
        Typed {
            file: "[[app]]\nid = 1",
            ..Typed::default()
        },
        "unknown key app (file outpour.toml:1); the nearest known one is apps",
    );
    check_error(
        Typed {
            file: "[[apps]]\nid = 1\nsecert = 'a'",
            ..Typed::default()
        },
        "unknown key secert (file outpour.toml:3); the nearest known one is secret",
    );
    check_error(
        Typed {
            variables: &[("OUTPOUR_SHARD", "4")],
            ..Typed::default()
        },
        "unknown variable OUTPOUR_SHARD in the environment; the nearest known one is OUTPOUR_SHARDS",
    );
    check_error(
        Typed {
            variables: &[("OUTPOUR_CONFIGS", "a")],
            ..Typed::default()
        },
        "unknown variable OUTPOUR_CONFIGS in the environment; the nearest known one is OUTPOUR_CONFIG",
    );
}

#[test]
fn variables_of_others_and_links_to_a_service_are_passed_over() {
    let variables = [
        ("HOME", "/"),
        ("OUTPOURING", "1"),
        ("OUTPOUR_PORT", "tcp://10.0.0.1:6001"),
        ("OUTPOUR_SERVICE_HOST", "10.0.0.1"),
    ];
    let loaded = loaded(Typed {
        variables: &variables,
        ..Typed::default()
    })
    .unwrap();
    assert_eq!(loaded.options, Options::default());
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_is_accepted() {
    check_error(
        Typed {
            file: "shards = 1025",
            ..Typed::default()
        },
        "shards = \"1025\" (file outpour.toml:1) is refused: it accepts auto, or a whole number from 1 to 1024",
    );
    check_error(
        Typed {
            file: "backlog = \"7\"",
            ..Typed::default()
        },
        "backlog = \"7\" (file outpour.toml:1) is refused: it accepts a whole number from 1 to 65535; this is a string",
    );
    check_error(
        Typed {
            file: "spin_us = 2.5",
            ..Typed::default()
        },
        "spin_us = \"2.5\" (file outpour.toml:1) is refused: it accepts a whole number from 0 to 1000000; this is a float",
    );
    check_error(
        Typed {
            variables: &[("OUTPOUR_METRICS", "maybe")],
            ..Typed::default()
        },
        "metrics = \"maybe\" (environment OUTPOUR_METRICS) is refused: it accepts auto, or one of on, off, true, false",
    );
    check_error(
        Typed {
            arguments: &["--backlog", "-1"],
            ..Typed::default()
        },
        "backlog = \"-1\" (flag --backlog) is refused: it accepts a whole number from 1 to 65535",
    );
    check_error(
        Typed {
            file: "shards = 0",
            arguments: &["--shards", "4"],
            ..Typed::default()
        },
        "shards = \"0\" (file outpour.toml:1) is refused: it accepts auto, or a whole number from 1 to 1024",
    );
}

#[test]
fn numbers_outside_of_their_range_are_refused_for_every_setting() {
    let mut count = 0;
    for setting in SETTINGS {
        let accepts = setting.accepts();
        let Some((_, range)) = accepts.split_once("a whole number from ") else {
            continue;
        };
        let (least, most) = range.split_once(" to ").expect("a range has two ends");
        let most: u64 = most.parse().unwrap();
        let mut options = Options::default();
        assert!(setting.set(&mut options, least), "{}", setting.name);
        assert!(
            setting.set(&mut options, &most.to_string()),
            "{}",
            setting.name
        );
        assert!(
            !setting.set(&mut options, &(most + 1).to_string()),
            "{}",
            setting.name
        );
        assert!(!setting.set(&mut options, "-1"), "{}", setting.name);
        if let Some(below) = least.parse::<u64>().unwrap().checked_sub(1) {
            assert!(
                !setting.set(&mut options, &below.to_string()),
                "{}",
                setting.name
            );
        }
        count += 1;
    }
    assert!(count > 20);
}

#[test]
fn the_file_may_write_values_as_toml_has_them() {
    let file = "address = 7001\nmetrics = true\ncores = [0, 2]\nmessage_bytes_max = 0x1_0001\n\
                shards = 'auto'\nclient_events = false\napp_id = 77\n";
    let options = loaded(Typed {
        file,
        ..Typed::default()
    })
    .unwrap()
    .options;
    assert_eq!(options.address.to_string(), "127.0.0.1:7001");
    assert!(options.metrics_are_served());
    assert_eq!(options.cores, Cores::Listed(vec![0, 2]));
    assert_eq!(options.message_bytes_max, 65_537);
    assert_eq!(options.shard_count(64), 2);
    assert!(!options.apps[0].client_events);
    assert_eq!(options.apps[0].id, "77");
}

const TWO_APPS: &str = "\
event_data_bytes_max = 5000
[[apps]]
id = 1
key = 'one'
secret = 'secret-of-the-first'
[[apps]]
id = '2'
key = 'two'
secret = 'secret-of-the-second'
client_events = true
enabled = false
event_data_bytes_max = 20000
";

#[test]
fn listed_apps_have_the_limits_of_the_server_unless_they_state_their_own() {
    let loaded = loaded(Typed {
        file: TWO_APPS,
        variables: &[("OUTPOUR_CLIENT_EVENTS_PER_SECOND_MAX", "3")],
        arguments: &["--address", "0.0.0.0:6001"],
    })
    .unwrap();
    let [one, two] = &loaded.options.apps[..] else {
        panic!("two apps are listed");
    };
    assert_eq!((one.id.as_str(), one.key.as_str()), ("1", "one"));
    assert_eq!(one.secret.as_bytes(), b"secret-of-the-first");
    assert_eq!((one.client_events, one.enabled), (false, true));
    assert_eq!((two.client_events, two.enabled), (true, false));
    assert_eq!(
        (one.event_data_bytes_max, two.event_data_bytes_max),
        (5000, 20_000)
    );
    assert_eq!(
        (
            one.client_events_per_second_max,
            two.client_events_per_second_max
        ),
        (3, 3)
    );
}

#[test]
fn every_limit_of_an_app_is_the_servers_unless_it_is_stated() {
    let mut count = 0;
    for setting in APP_SETTINGS {
        let Some(server_wide) = defaults::server_wide(setting.name) else {
            continue;
        };
        let [text, ..] = samples(server_wide);
        let argument = format!("--{}={text}", server_wide.flag());
        for file in ["", TWO_APPS] {
            let loaded = loaded(Typed {
                file,
                arguments: &[&argument],
                ..Typed::default()
            });
            let options = loaded.unwrap().options;
            let app = &options.apps[0];
            let printed = server_wide.print(&options);
            assert_eq!(setting.print(app), printed, "{}", setting.name);
            assert_ne!(printed, server_wide.print(&Options::default()));
        }
        count += 1;
    }
    assert!(count > 10);
}

#[test]
fn soketi_has_defaults_of_its_own_where_nothing_is_stated() {
    let soketi = loaded(Typed {
        arguments: &["--compat", "soketi", "--cache-ttl-s", "1800"],
        ..Typed::default()
    })
    .unwrap();
    assert_eq!(soketi.options.activity_timeout_s, 30);
    let app = &soketi.options.apps[0];
    assert_eq!(app.event_data_bytes_max, 102_400);
    assert_eq!(app.presence_user_bytes_max, 2048);
    assert_eq!(app.cache_ttl_s, 1800);
    let report = soketi.report();
    let line = |name: &str| report.lines().find(|line| line.starts_with(name));
    let activity = line("activity_timeout_s").unwrap();
    assert!(activity.ends_with("default of compat"), "{activity}");
    let listed = loaded(Typed {
        file: &format!("compat = 'soketi'\n{TWO_APPS}"),
        ..Typed::default()
    })
    .unwrap();
    let sizes = listed.options.apps.iter();
    let sizes: Vec<usize> = sizes.map(|app| app.event_data_bytes_max).collect();
    assert_eq!(sizes, [5000, 20_000]);
}

#[test]
fn a_list_of_apps_that_is_ambiguous_or_incomplete_is_refused() {
    check_error(
        Typed {
            file: TWO_APPS,
            variables: &[("OUTPOUR_APP_KEY", "a")],
            ..Typed::default()
        },
        "app_key (environment OUTPOUR_APP_KEY) is for a server with one app, and apps are listed \
         (file outpour.toml:2): use one of the two",
    );
    check_error(
        Typed {
            file: "[[apps]]\nid = 1\nkey = 'a'\n",
            ..Typed::default()
        },
        "the app at file outpour.toml:1 has no secret",
    );
    check_error(
        Typed {
            file: "apps = []",
            ..Typed::default()
        },
        "apps (file outpour.toml:1) accepts [[apps]] tables, at least one",
    );
    let repeated = |second: &str| format!("{TWO_APPS}[[apps]]\nsecret = 's'\n{second}\n");
    check_error(
        Typed {
            file: &repeated("id = 1\nkey = 'b'"),
            ..Typed::default()
        },
        "two apps have the id 1: file outpour.toml:3 and file outpour.toml:15",
    );
    check_error(
        Typed {
            file: &repeated("id = 3\nkey = 'two'"),
            ..Typed::default()
        },
        "two apps have the key two: file outpour.toml:8 and file outpour.toml:16",
    );
    check_error(
        Typed {
            file: "[[apps]]\nkey = 'a/b'",
            ..Typed::default()
        },
        "key = \"a/b\" (file outpour.toml:2) is refused: it accepts 1 to 128 characters of A-Z a-z 0-9 - _ . ~",
    );
}

#[test]
fn client_events_are_on_for_the_built_in_secret_alone_unless_stated() {
    let client_events = |arguments: &[&str]| {
        let loaded = loaded(Typed {
            arguments,
            ..Typed::default()
        })
        .unwrap();
        loaded.options.apps[0].client_events
    };
    assert!(client_events(&[]));
    assert!(!client_events(&["--app-secret", "of-my-own"]));
    assert!(client_events(&[
        "--app-secret",
        "of-my-own",
        "--client-events"
    ]));
    assert!(!client_events(&["--client-events", "off"]));
}

#[test]
fn bounds_that_make_each_other_unreachable_are_refused() {
    check_error(
        Typed {
            arguments: &["--drain-ms", "20000"],
            ..Typed::default()
        },
        "drain_timeout_ms = 15000 (default) must be at least 20000, as drain_ms is",
    );
    check_error(
        Typed {
            arguments: &["--log-bytes-max", "536870912"],
            ..Typed::default()
        },
        "log_bytes_per_shard_max = 268435456 (default) must be at least 536870912, as log_bytes_max is",
    );
    check_error(
        Typed {
            arguments: &["--event-data-bytes-max", "1048576"],
            ..Typed::default()
        },
        "log_bytes_max = 4194304 (default) must be at least 6293880, as long as an event with \
         1048576 bytes of data (event_data_bytes_max) may be when it is encoded",
    );
    check_error(
        Typed {
            arguments: &["--event-data-bytes-max", "100000"],
            ..Typed::default()
        },
        "message_bytes_max = 65536 (default) must be at least 100000, as event_data_bytes_max is",
    );
}

#[test]
fn channels_that_are_to_be_on_disk_need_a_journal() {
    let file = format!("{TWO_APPS}[[apps.channels]]\nname = 'a-*'\ndurability = 'disk'\n");
    check_error(
        Typed {
            file: &file,
            ..Typed::default()
        },
        "channels a-* are to be on disk (file outpour.toml:15), and there is no journal_directory: \
         name one, or set durability = \"memory\"",
    );
    let arguments = ["--durability", "disk", "--retained-channels", "room"];
    check_error(
        Typed {
            arguments: &arguments,
            ..Typed::default()
        },
        "channels room are to be on disk (flag --durability), and there is no journal_directory: \
         name one, or set durability = \"memory\"",
    );
    let with_directory = [&arguments[..], &["--journal-directory", "/a"]].concat();
    for arguments in [&with_directory[..], &arguments[..2]] {
        let typed = Typed {
            arguments,
            ..Typed::default()
        };
        assert!(loaded(typed).is_ok());
    }
    // Channels without serials are in memory, whatever is said of others.
    let file =
        format!("durability = 'disk'\n{TWO_APPS}[[apps.channels]]\nname = '*'\nserials = false\n");
    let typed = Typed {
        file: &file,
        ..Typed::default()
    };
    assert!(loaded(typed).is_ok());
}

#[test]
fn default_bounds_hold_the_largest_event_and_the_largest_batch_however_they_are_escaped() {
    for compat in ["pusher", "soketi"] {
        let loaded = loaded(Typed {
            arguments: &["--compat", compat],
            ..Typed::default()
        });
        let options = loaded.unwrap().options;
        let event = event_frame_bytes_max(&options, options.event_data_bytes_max);
        assert!(event <= options.message_bytes_max);
        assert!(event * options.batch_events_max <= options.http_body_bytes_max);
        let channels = options.event_channels_max * (options.channel_name_bytes_max + 3);
        assert!(event + channels <= options.http_body_bytes_max);
    }
}

#[test]
fn the_built_in_secret_is_refused_wherever_others_can_reach_it() {
    let error = |typed: Typed<'_>| {
        let error = loaded(typed).expect_err("is refused");
        assert!(
            matches!(error, OptionsError::BuiltInSecret { .. }),
            "{error}"
        );
        (
            error.to_string(),
            error.remedy("f00d").expect("there is a way out"),
        )
    };
    let everywhere: &[&str] = &["--address", "0.0.0.0:6001"];
    let (text, remedy) = error(Typed {
        arguments: everywhere,
        ..Typed::default()
    });
    assert_eq!(
        text,
        "app 1001 has the built-in secret (default), which everybody knows, so the address must be \
         a loopback one and not 0.0.0.0:6001 (flag --address): set a secret of your own"
    );
    assert!(
        remedy.ends_with("export OUTPOUR_APP_SECRET=f00d"),
        "{remedy}"
    );

    let file = "[[apps]]\nid = 1\nkey = 'a'\nsecret = 'app-secret'";
    let (_, remedy) = error(Typed {
        file,
        arguments: everywhere,
        ..Typed::default()
    });
    assert!(
        remedy.ends_with("outpour.toml:4, for example: secret = \"f00d\""),
        "{remedy}"
    );

    let flags: &[&str] = &["--address", "[::]:1", "--app-secret", "app-secret"];
    let (_, remedy) = error(Typed {
        arguments: flags,
        ..Typed::default()
    });
    assert_eq!(remedy, "for example: --app-secret f00d");

    for address in [
        "127.0.0.2:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
        "localhost:1",
    ] {
        let arguments = ["--address", address];
        assert!(
            loaded(Typed {
                arguments: &arguments,
                ..Typed::default()
            })
            .is_ok()
        );
    }
}

#[test]
fn secrets_are_in_no_report_no_error_and_no_debug_output() {
    const SECRET: &str = "tell-nobody-about-this-one";
    let one = loaded(Typed {
        arguments: &["--app-secret", SECRET],
        ..Typed::default()
    })
    .unwrap();
    let file = format!("[[apps]]\nid = 1\nkey = 'a'\nsecret = '{SECRET}'");
    let listed = loaded(Typed {
        file: &file,
        ..Typed::default()
    })
    .unwrap();
    for loaded in [one, listed] {
        let report = loaded.report();
        assert!(report.contains("tell... (26 characters)"), "{report}");
        assert!(!report.contains("nobody"));
        assert!(!format!("{loaded:?}").contains("nobody"));
    }

    let refused = [
        format!("app_secret = ['{SECRET}']"),
        format!("app_secret = '{SECRET} '"),
        format!("app_secret = '{SECRET}"),
        format!("app_secret = {SECRET}"),
        format!("app_secret = '{SECRET}'\napp_secret = '{SECRET}'"),
        format!("app_secert = '{SECRET}'"),
        format!("[[apps]]\nsecret = {{ a = '{SECRET}' }}"),
        format!("[[apps]]\nid = 1\nsecret = '{SECRET}'"),
        format!("apps = ['{SECRET}']"),
        format!("spin_us = {{ a = '{SECRET}' }}"),
        format!("[[apps]]\nid = {{ a = '{SECRET}' }}"),
    ];
    for file in refused {
        let error = loaded(Typed {
            file: &file,
            ..Typed::default()
        })
        .unwrap_err();
        assert!(!error.to_string().contains("nobody"), "{error}");
        assert!(!format!("{error:?}").contains("nobody"), "{error:?}");
    }
}

#[test]
fn the_report_names_each_value_and_where_it_comes_from() {
    let typed = || Typed {
        file: TWO_APPS,
        variables: &[("OUTPOUR_ECHO", "/echo")],
        arguments: &["--spin-us", "7"],
    };
    let report = loaded(typed()).unwrap().report();
    let words = |name: &str| {
        let line = report
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in {report}"));
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(words("address"), "127.0.0.1:6001 default");
    assert_eq!(words("path_prefix"), "\"\" default");
    assert_eq!(words("event_data_bytes_max"), "5000 file outpour.toml:1");
    assert_eq!(words("echo"), "/echo environment OUTPOUR_ECHO");
    assert_eq!(words("spin_us"), "7 flag --spin-us");
    assert_eq!(words("apps[1].key"), "two file outpour.toml:8");
    assert_eq!(words("apps[0].client_events"), "off default");
    assert!(!report.contains("app_secret"));
}

#[test]
fn auto_is_decided_by_the_other_options_and_the_machine() {
    let with = |arguments: &[&str]| {
        let secret = ["--app-secret", "of-my-own"];
        let arguments = [&secret, arguments].concat();
        loaded(Typed {
            arguments: &arguments,
            ..Typed::default()
        })
        .unwrap()
        .options
    };
    assert_eq!(with(&[]).shard_count(3), 3);
    assert_eq!(with(&[]).shard_count(0), 1);
    assert_eq!(with(&["--cores", "none"]).shard_count(5000), 1024);
    assert_eq!(with(&["--cores", "4-5"]).shard_count(64), 2);
    assert_eq!(
        with(&["--cores", "4-5", "--shards", "8"]).shard_count(64),
        8
    );
    assert!(with(&[]).metrics_are_served());
    assert!(!with(&["--address", "0.0.0.0:1"]).metrics_are_served());
    assert!(with(&["--address", "0.0.0.0:1", "--metrics"]).metrics_are_served());
    assert!(!with(&["--metrics", "off"]).metrics_are_served());
}

#[test]
fn the_readme_documents_the_table_as_it_is() {
    let readme = include_str!("../../README.md");
    let begin = readme
        .find(report::MARKDOWN_BEGIN)
        .expect("the README has the tables");
    let end = readme
        .find(report::MARKDOWN_END)
        .expect("the tables have an end");
    let documented = &readme[begin..end + report::MARKDOWN_END.len()];
    assert_eq!(
        documented,
        report::markdown().trim_end(),
        "put the output of `outpour config --markdown` into README.md"
    );
}

const TWO_WEBHOOKS: &str = "\
[[apps]]
id = 1
key = 'one'
secret = 'secret-of-the-first'
[[apps.webhooks]]
url = 'http://127.0.0.1:7001/a'
[[apps.webhooks]]
url = 'https://example.com/b'
events = ['channel_occupied', 'channel_vacated']
channel_name_starts_with = ['private-', 'a,b']
headers = { Authorization = 'Bearer tell-nobody', X-Number = 7 }
request_events_max = 20
[[apps]]
id = 2
key = 'two'
secret = 'secret-of-the-second'
";

#[test]
fn an_app_has_any_number_of_webhooks() {
    let loaded = loaded(Typed {
        file: TWO_WEBHOOKS,
        ..Typed::default()
    })
    .unwrap();
    let [one, two] = &loaded.options.apps[..] else {
        panic!("two apps are listed");
    };
    assert_eq!((one.webhooks.len(), two.webhooks.len()), (2, 0));
    let [plain, other] = &one.webhooks[..] else {
        panic!("the first has two webhooks");
    };
    assert_eq!(plain.events, EventTypes::ALL);
    assert_eq!(other.url.to_string(), "https://example.com/b");
    assert!(other.events.holds(EventType::ChannelVacated));
    assert!(!other.events.holds(EventType::ClientEvent));
    assert_eq!(other.channel_name_starts_with, ["private-", "a,b"]);
    let headers: Vec<_> = other.headers.iter().collect();
    assert_eq!(headers[0].1, "Bearer tell-nobody");
    assert_eq!(
        (headers[1].0.as_str(), headers[1].1.to_str().unwrap()),
        ("x-number", "7")
    );
    let report = loaded.report();
    let has = |name: &str, value: &str| {
        report
            .lines()
            .any(|line| line.starts_with(&format!("{name} ")) && line.contains(value))
    };
    assert!(
        has("apps[0].webhooks[1].url", "https://example.com/b"),
        "{report}"
    );
    assert!(has("apps[0].webhooks[1].url", "outpour.toml:8"), "{report}");
    assert!(
        has("apps[0].webhooks[1].headers", "authorization: ..."),
        "{report}"
    );
    assert!(!report.contains("nobody"));
    assert!(!format!("{loaded:?}").contains("nobody"));
}

#[test]
fn a_webhook_that_is_not_complete_or_not_known_is_refused() {
    let with = |webhooks: &str| format!("[[apps]]\nid = 1\nkey = 'a'\nsecret = 's'\n{webhooks}");
    check_error(
        Typed {
            file: &with("[[apps.webhooks]]\nevents = 'all'"),
            ..Typed::default()
        },
        "the webhook at file outpour.toml:5 has no url",
    );
    check_error(
        Typed {
            file: &with("[[apps.webhooks]]\nurl = 'http://a/'\nevent = 'all'"),
            ..Typed::default()
        },
        "unknown key event (file outpour.toml:7); the nearest known one is events",
    );
    check_error(
        Typed {
            file: &with("[[apps.webhook]]\nurl = 'http://a/'"),
            ..Typed::default()
        },
        "unknown key webhook (file outpour.toml:5); the nearest known one is webhooks",
    );
    check_error(
        Typed {
            file: &with("webhooks = 'http://a/'"),
            ..Typed::default()
        },
        "webhooks (file outpour.toml:5) accepts [[apps.webhooks]] tables, at least one",
    );
    check_error(
        Typed {
            file: &with("[[apps.webhooks]]\nurl = 'a'"),
            ..Typed::default()
        },
        "url = \"a\" (file outpour.toml:6) is refused: it accepts a URL such as \
         https://example.com/hook, without a user",
    );
    check_error(
        Typed {
            file: &with(""),
            arguments: &["--webhook-url", "http://a/"],
            ..Typed::default()
        },
        "webhook_url (flag --webhook-url) is for a server with one app, and apps are listed \
         (file outpour.toml:1): use one of the two",
    );
}

#[test]
fn the_only_app_has_one_webhook_by_two_settings() {
    let arguments = [
        "--webhook-url",
        "http://a/",
        "--webhook-events",
        "cache_miss",
    ];
    let loaded = loaded(Typed {
        arguments: &arguments,
        ..Typed::default()
    })
    .unwrap();
    let [webhook] = &loaded.options.apps[0].webhooks[..] else {
        panic!("the app has a webhook");
    };
    assert_eq!(webhook.url.to_string(), "http://a/");
    assert!(webhook.events.holds(EventType::CacheMiss));
    assert!(!webhook.events.holds(EventType::ChannelOccupied));
}

#[test]
fn an_app_has_one_hook_at_most() {
    let with = |hook: &str| format!("[[apps]]\nid = 1\nkey = 'a'\nsecret = 's'\n{hook}");
    let stated = with(
        "[apps.before_publish]\nurl = 'http://a/'\nchannel_name_starts_with = ['private-']\n\
         on_failure = 'refuse'",
    );
    let typed = || Typed {
        file: &stated,
        ..Typed::default()
    };
    let loaded = loaded(typed()).unwrap();
    let hook = loaded.options.apps[0].before_publish.as_ref();
    let hook = hook.expect("it is stated");
    assert_eq!((hook.timeout_ms, hook.on_failure), (500, OnFailure::Refuse));
    assert_eq!(hook.channel_name_starts_with, ["private-"]);
    assert!(
        loaded
            .report()
            .contains("apps[0].before_publish.on_failure")
    );
    check_error(
        Typed {
            file: &with("[apps.before_publish]\ntimeout_ms = 10"),
            ..Typed::default()
        },
        "the before_publish hook at file outpour.toml:5 has no url",
    );
    check_error(
        Typed {
            file: &with("[[apps.before_publish]]\nurl = 'http://a/'"),
            ..Typed::default()
        },
        "before_publish (file outpour.toml:5) accepts one table, [apps.before_publish]",
    );
    check_error(
        Typed {
            file: &with("[apps.before_publish]\nurl = 'http://a/'\non_failure = 'drop'"),
            ..Typed::default()
        },
        "on_failure = \"drop\" (file outpour.toml:7) is refused: it accepts one of publish, refuse",
    );
}

#[test]
fn channels_that_are_retained_are_named_by_one_setting_or_by_tables() {
    let one = loaded(Typed {
        arguments: &[
            "--retained-channels",
            "room chat-*",
            "--retention-age-s",
            "7",
        ],
        ..Typed::default()
    })
    .unwrap();
    let [room, chat] = &one.options.apps[0].channels[..] else {
        panic!("two patterns were given");
    };
    assert_eq!((room.name.to_string(), room.serials), ("room".into(), true));
    assert_eq!(
        (chat.name.to_string(), chat.retention_age_s),
        ("chat-*".into(), 7)
    );

    let file = "\
retention_messages_max = 5
[[apps]]
id = 1
key = 'a'
secret = 's'
[[apps.channels]]
name = 'chat-secret'
serials = false
[[apps.channels]]
name = 'chat-*'
retention_bytes_max = 9000
";
    let listed = loaded(Typed {
        file,
        ..Typed::default()
    })
    .unwrap();
    let [secret, chat] = &listed.options.apps[0].channels[..] else {
        panic!("two tables are listed");
    };
    assert!(!secret.serials && chat.serials);
    assert_eq!(
        (chat.retention_messages_max, chat.retention_bytes_max),
        (5, 9000)
    );
    let report = listed.report();
    assert!(report.contains("apps[0].channels[1].name"), "{report}");
    check_error(
        Typed {
            file: "[[apps]]\nid = 1\nkey = 'a'\nsecret = 's'\n[[apps.channels]]\nserials = true",
            ..Typed::default()
        },
        "the table of channels at file outpour.toml:5 has no name",
    );
}
