//! What a run has found so far: its results, step by step, and the verdict at the end.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::conclusion::Measured;
use super::machine_facts;
use super::stand::Stand;
use crate::load::machine::monotonic_ns;
use crate::load::orders::Glance;
use crate::load::report::numbers;
use crate::load::report::table::{handshakes_per_s, offered, step_name};
use crate::load::result::{
    Evidence, FORMAT, Memory, Outcome, Results, Scenario, Step, Storm, Verdict,
};
use crate::load::view::{Errors, Moment, View};

pub struct Record {
    results: Results,
    began_ns: u64,
    evidence: Vec<Evidence>,
    invalid: Vec<String>,
    /// Milliseconds for which clients are still to stand still, once.
    freeze_ms: u64,
    freezing: Option<JoinHandle<io::Result<()>>>,
    /// None where nobody wants to see it.
    view: Option<View>,
}

impl Record {
    pub fn begin(
        stand: &Stand,
        scenario: Scenario,
        command_line: Vec<String>,
        freeze_ms: u64,
        view: Option<View>,
    ) -> Record {
        Record {
            results: Results {
                format: FORMAT,
                began_utc: machine_facts::now_utc(),
                machine: machine_facts::machine(),
                outpour: machine_facts::build(),
                command_line,
                target: stand.target.clone(),
                network: stand.network,
                scenario,
                verdict: Verdict::Valid,
                cores: stand.cores.clone(),
                steps: Vec::new(),
                knee: None,
                knee_is_lower_bound: false,
                sustained: None,
                sustained_is_lower_bound: false,
                storms: Vec::new(),
                memory: None,
            },
            began_ns: monotonic_ns(),
            evidence: Vec::new(),
            invalid: Vec::new(),
            freeze_ms,
            freezing: None,
            view,
        }
    }

    pub fn began_ns(&self) -> u64 {
        self.began_ns
    }

    /// A step whose figures are asked for: if the generator was not fit, the run is invalid.
    pub fn push(&mut self, measured: Measured) {
        if let Some(why) = measured.invalid() {
            self.invalid.push(why.to_owned());
        }
        self.push_on_the_way(measured);
    }

    /// A step of a search: whether the generator was fit is the search's matter.
    pub fn push_on_the_way(&mut self, measured: Measured) {
        let line = step_line(&measured.step);
        self.say(&line);
        self.evidence.extend(measured.evidence);
        self.results.steps.push(measured.step);
    }

    /// The last step is the knee, or what the generator could offer below it.
    pub fn mark_knee(&mut self, is_lower_bound: bool) {
        self.results.knee = self.results.steps.len().checked_sub(1);
        self.results.knee_is_lower_bound = is_lower_bound;
    }

    /// Messages a second at the knee, if there is one.
    pub fn knee_per_s(&self) -> Option<f64> {
        let step = self.results.steps.get(self.results.knee?)?;
        step.offered_per_s
    }

    /// The last step is the highest rate that was sustained, or that the generator could offer.
    pub fn mark_sustained(&mut self, is_lower_bound: bool) {
        self.results.sustained = self.results.steps.len().checked_sub(1);
        self.results.sustained_is_lower_bound = is_lower_bound;
    }

    pub fn say_invalid(&mut self, why: String) {
        self.invalid.push(why);
    }

    pub fn push_storm(&mut self, storm: Storm) {
        let line = format!(
            "{}: {} handshakes a second",
            storm.kind.name(),
            handshakes_per_s(&storm)
        );
        self.say(&line);
        self.results.storms.push(storm);
    }

    pub fn keep_memory(&mut self, memory: Memory) {
        self.results.memory = Some(memory);
    }

    /// The server did what nothing excuses: there is no point in going on.
    pub fn has_failed(&self) -> bool {
        !self.evidence.is_empty()
    }

    /// Something was lost in a step, perhaps by right: it was too much.
    pub fn has_seen_loss(&self) -> bool {
        let mut steps = self.results.steps.iter();
        steps.any(|step| step.disorder.lost > 0)
    }

    /// The step of the highest rate at which nothing was lost and p99 stayed below so many milliseconds.
    pub fn highest_whole(&self, p99_ms_max: f64) -> Option<f64> {
        let steps = self.results.steps.iter().filter(|step| {
            let p99_us = step.latency.delivery.quantile_us(0.99).unwrap_or(u64::MAX);
            step.disorder.is_none() && step.refused == 0 && p99_us as f64 <= p99_ms_max * 1e3
        });
        steps
            .filter_map(|step| step.offered_per_s)
            .max_by(f64::total_cmp)
    }

    pub fn show(&mut self, moment: &Moment) {
        if let Some(view) = &mut self.view {
            view.show(moment);
        }
    }

    /// Shows how clients open: so many of so many.
    pub fn show_opening(&mut self, what: &str, glance: &Glance, of: usize) {
        let moment = Moment {
            phase: format!("{what}: {of} connections"),
            done_share: glance.clients as f64 / of.max(1) as f64,
            at_s: glance.at_ns.saturating_sub(self.began_ns) as f64 / 1e9,
            connections: glance.clients,
            errors: Errors {
                closed: glance.closed,
                ..Errors::default()
            },
            ..Moment::default()
        };
        self.show(&moment);
    }

    fn say(&mut self, line: &str) {
        if let Some(view) = &mut self.view {
            view.say(line);
        }
    }

    /// Has the clients stand still in the middle of a step, if that was asked for.
    pub fn freeze_once(&mut self, stand: &Stand, since_ns: u64) {
        if self.freeze_ms == 0 || monotonic_ns() < since_ns + 200_000_000 {
            return;
        }
        let length = Duration::from_millis(std::mem::take(&mut self.freeze_ms));
        let pids: Vec<Pid> = stand
            .crowd
            .pids()
            .filter_map(|pid| Pid::from_raw(pid as i32))
            .collect();
        self.freezing = Some(thread::spawn(move || {
            for pid in &pids {
                kill_process(*pid, Signal::STOP)?;
            }
            thread::sleep(length);
            for pid in &pids {
                kill_process(*pid, Signal::CONT)?;
            }
            Ok(())
        }));
    }

    pub fn finish(mut self) -> Results {
        if let Some(Ok(Err(error))) = self.freezing.take().map(JoinHandle::join) {
            self.invalid
                .push(format!("clients did not stand still: {error}"));
        }
        if let Some(view) = self.view.take() {
            view.finish();
        }
        self.results.verdict = if !self.evidence.is_empty() {
            Verdict::Failed {
                evidence: self.evidence,
            }
        } else if !self.invalid.is_empty() {
            Verdict::Invalid { why: self.invalid }
        } else {
            Verdict::Valid
        };
        self.results
    }
}

/// What a step came to, in a line.
fn step_line(step: &Step) -> String {
    let outcome = match &step.outcome {
        Outcome::Kept => "kept".to_owned(),
        Outcome::Missed { why } => format!("missed: {why}"),
        Outcome::Invalid { why } => format!("invalid: {why}"),
    };
    format!(
        "{} {} a second: {} deliveries a second, p99 {}, {outcome}",
        step_name(step.kind),
        offered(step),
        numbers::large(step.deliveries_per_s),
        numbers::duration_us_or_dash(step.latency.delivery.quantile_us(0.99)),
    )
}
