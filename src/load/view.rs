//! What is seen while a run goes on: a few lines with a progress bar that redraw themselves on a terminal, and a
//! plain line now and then where there is none. All of it goes to stderr, so that stdout holds results alone.
//!
//! The coordinator calls [`View::show`] whenever it has news, some times a second; there is no thread behind it.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::report::numbers;

/// How a run stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// What is going on: `search: 800 messages a second`.
    pub phase: String,
    /// How much of the phase is done, 0 to 1.
    pub done_share: f64,
    /// Since the run began.
    pub at_s: f64,
    /// Connections that are open.
    pub connections: u64,
    /// Over the time since the moment before; none while nothing is published.
    pub published_per_s: Option<f64>,
    pub delivered_per_s: Option<f64>,
    /// Deliveries that are due and not made.
    pub lag_deliveries: u64,
    /// Of the deliveries since the moment before.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    pub errors: Errors,
    /// `core 0 (server)`, `core 1 (generator)`: how busy each was in the last second, 0 to 1, whoever ran there.
    pub busy: Vec<(String, f64)>,
}

/// Signs of trouble in the phase so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    pub refused: u64,
    pub disorder: u64,
    pub closed: u64,
}

pub struct View {
    target: Target,
}

enum Target {
    Terminal(ProgressBar),
    Plain { next_s: f64, phase: String },
}

/// Between plain lines of one phase.
const PLAIN_EVERY_S: f64 = 5.0;
const BAR_STEPS: u64 = 1_000;
/// The lines fit into a terminal of 80 columns.
const COLUMNS: usize = 80;
const GAUGE_CELLS: usize = 8;
/// `core 0 (generator)`.
const GAUGE_NAME: usize = 18;

impl View {
    pub fn new() -> View {
        if !std::io::stderr().is_terminal() {
            return View {
                target: Target::Plain {
                    next_s: 0.0,
                    phase: String::new(),
                },
            };
        }
        let style = ProgressStyle::with_template(
            "{prefix}\n{bar:64.cyan/black.bright} {percent:>3} %\n{msg}",
        )
        .expect("the template is a constant")
        .progress_chars("━━╌");
        let bar = ProgressBar::new(BAR_STEPS);
        bar.set_style(style);
        View {
            target: Target::Terminal(bar),
        }
    }

    pub fn show(&mut self, moment: &Moment) {
        match &mut self.target {
            Target::Terminal(bar) => {
                bar.set_prefix(heading(moment));
                bar.set_message(body(moment));
                bar.set_position((moment.done_share.clamp(0.0, 1.0) * BAR_STEPS as f64) as u64);
            }
            Target::Plain { next_s, phase } => {
                if *phase == moment.phase && moment.at_s < *next_s {
                    return;
                }
                *next_s = moment.at_s + PLAIN_EVERY_S;
                phase.clone_from(&moment.phase);
                say_plainly(&line(moment));
            }
        }
    }

    /// A line that stays: what a step came to.
    pub fn say(&mut self, line: &str) {
        match &self.target {
            Target::Terminal(bar) => bar.println(line),
            Target::Plain { .. } => say_plainly(line),
        }
    }

    /// Leaves the terminal as if nothing had been shown but the lines that stay.
    pub fn finish(self) {
        match self.target {
            Target::Terminal(bar) => bar.finish_and_clear(),
            Target::Plain { .. } => {}
        }
    }
}

impl Default for View {
    fn default() -> View {
        View::new()
    }
}

/// A run does not end because nobody can see it.
fn say_plainly(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

fn heading(moment: &Moment) -> String {
    let clock = format!("{:.0} s", moment.at_s);
    let room = COLUMNS - clock.len() - 1;
    let phase: String = moment.phase.chars().take(room).collect();
    format!("{phase:<room$} {clock}")
}

/// Rates, latencies, errors, cores: a line each, with what is not known left out.
fn body(moment: &Moment) -> String {
    let mut lines = vec![format!(
        "rate    {:>14} published {:>14} delivered {:>9} behind",
        per_second(moment.published_per_s),
        per_second(moment.delivered_per_s),
        numbers::short(moment.lag_deliveries as f64),
    )];
    lines.push(format!(
        "delay   {:>14} p50       {:>14} p99",
        numbers::duration_us_or_dash(moment.p50_us),
        numbers::duration_us_or_dash(moment.p99_us),
    ));
    lines.push(format!(
        "clients {:>14} open      {:>14}",
        numbers::count(moment.connections),
        moment.errors.text(),
    ));
    for (row, pair) in moment.busy.chunks(2).enumerate() {
        let gauges: Vec<String> = pair
            .iter()
            .map(|(name, share)| gauge(name, *share))
            .collect();
        let name = if row == 0 { "busy" } else { "" };
        lines.push(format!("{name:<7} {}", gauges.join("  ")));
    }
    lines.join("\n")
}

/// All of it in one line, for a log.
fn line(moment: &Moment) -> String {
    let mut parts = vec![
        format!("{:>6.1} s", moment.at_s),
        format!("{} {:.0} %", moment.phase, moment.done_share * 100.0),
        format!("{} open", numbers::count(moment.connections)),
    ];
    if moment.published_per_s.is_some() || moment.delivered_per_s.is_some() {
        parts.push(format!(
            "{} published, {} delivered, {} behind",
            per_second(moment.published_per_s),
            per_second(moment.delivered_per_s),
            numbers::short(moment.lag_deliveries as f64)
        ));
    }
    if let Some(p99_us) = moment.p99_us {
        parts.push(format!("p99 {}", numbers::duration_us(p99_us as f64)));
    }
    if moment.errors != Errors::default() {
        parts.push(moment.errors.text());
    }
    parts.extend(
        moment
            .busy
            .iter()
            .map(|(name, share)| format!("{name} {}", numbers::share(*share))),
    );
    parts.join("  ")
}

impl Errors {
    fn text(self) -> String {
        if self == Errors::default() {
            return "no errors".to_owned();
        }
        let kinds = [
            (self.refused, "refused"),
            (self.disorder, "out of order"),
            (self.closed, "closed"),
        ];
        let kinds = kinds.iter().filter(|(count, _)| *count > 0);
        let kinds: Vec<String> = kinds
            .map(|(count, kind)| format!("{} {kind}", numbers::count(*count)))
            .collect();
        kinds.join(", ")
    }
}

fn per_second(rate: Option<f64>) -> String {
    rate.map_or_else(
        || "-".to_owned(),
        |rate| format!("{}/s", numbers::short(rate)),
    )
}

/// `core 0 (server)    ██████░░   75 %`, 34 columns wide.
fn gauge(name: &str, share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (GAUGE_CELLS * 8) as f64).round() as usize;
    let (full, part) = (eighths / 8, eighths % 8);
    let used = full + usize::from(part > 0);
    let name: String = name.chars().take(GAUGE_NAME).collect();
    format!(
        "{name:<GAUGE_NAME$} {}{}{} {:>6}",
        "█".repeat(full),
        EIGHTHS[part],
        "░".repeat(GAUGE_CELLS - used),
        numbers::share(share)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Moment {
        Moment {
            phase: "search: 800 messages a second to 10,000 subscribers".to_owned(),
            done_share: 0.456,
            at_s: 17.3,
            connections: 10_000,
            published_per_s: Some(800.0),
            delivered_per_s: Some(7_804_321.0),
            lag_deliveries: 312_000,
            p50_us: Some(20_100),
            p99_us: Some(61_200),
            errors: Errors::default(),
            busy: vec![
                ("core 0 (server)".to_owned(), 0.92),
                ("core 1 (server)".to_owned(), 0.051),
                ("core 2 (generator)".to_owned(), 1.0),
            ],
        }
    }

    #[test]
    fn a_moment_is_a_few_lines_of_80_columns() {
        let expected = "\
search: 800 messages a second to 10,000 subscribers                         17 s
rate             800/s published       7.80 M/s delivered     312 k behind
delay          20.1 ms p50              61.2 ms p99
clients         10,000 open           no errors
busy    core 0 (server)    ███████▍   92 %  core 1 (server)    ▍░░░░░░░  5.1 %
        core 2 (generator) ████████  100 %";
        let text = format!("{}\n{}", heading(&moment()), body(&moment()));
        assert_eq!(text, expected);
        for width in text.lines().map(|line| line.chars().count()) {
            assert!(width <= COLUMNS, "{width}");
        }
    }

    #[test]
    fn a_moment_is_one_plain_line() {
        let mut moment = moment();
        let expected = "  17.3 s  search: 800 messages a second to 10,000 subscribers 46 %  10,000 open  \
            800/s published, 7.80 M/s delivered, 312 k behind  p99 61.2 ms  core 0 (server) 92 %  core 1 (server) 5.1 %  \
            core 2 (generator) 100 %";
        assert_eq!(line(&moment), expected);
        moment = Moment {
            phase: "connect".to_owned(),
            connections: 1_234,
            errors: Errors {
                refused: 0,
                disorder: 2,
                closed: 1,
            },
            ..Moment::default()
        };
        let expected = "   0.0 s  connect 0 %  1,234 open  2 out of order, 1 closed";
        assert_eq!(line(&moment), expected);
    }

    #[test]
    fn long_names_and_wild_shares_keep_their_columns() {
        for share in [-1.0, 0.0, 0.001, 0.5, 0.999, 1.0, 1.7] {
            let text = gauge("a thread with a long name", share);
            assert_eq!(text.chars().count(), 34, "{text}");
        }
        let moment = Moment {
            phase: "x".repeat(200),
            ..Moment::default()
        };
        assert_eq!(heading(&moment).chars().count(), COLUMNS);
    }
}
