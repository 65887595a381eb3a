//! What every program takes: where its own work runs, and whether its output is kept.

use super::report::Report;

#[derive(Clone, Debug, clap::Args)]
pub struct Generator {
    /// The core of the readers and the publisher.
    #[arg(long, default_value_t = 1)]
    pub readers_core: usize,
    /// Keep the output in perf/results.
    #[arg(long)]
    record: bool,
}

impl Generator {
    /// Begins the program's report, with as many files as it may open and on the generator's core.
    pub fn begin(&self, name: &'static str) -> Report {
        super::lift_open_files();
        let report = Report::begin(name, self.record);
        super::pin(self.readers_core);
        report
    }
}
