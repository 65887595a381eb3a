//! What every program takes: where its own work runs, and whether its output is kept.

use outpour::load::netns;

use super::report::Report;

#[derive(Clone, Debug, clap::Args)]
pub struct Generator {
    /// The core of the readers and the publisher.
    #[arg(long, default_value_t = 1)]
    pub readers_core: usize,
    /// Run in a private network namespace whose loopback processes what is received on the readers'
    /// core, as a network card would. Needs root.
    #[arg(long)]
    netns: bool,
    /// Keep the output in perf/results.
    #[arg(long)]
    record: bool,
}

impl Generator {
    /// Begins the program's report, with as many files as it may open and on the generator's core.
    pub fn begin(&self, name: &'static str) -> Report {
        let steered_to = self.netns.then_some(self.readers_core);
        if let Some(core) = steered_to
            && let Err(error) = netns::enter(core)
        {
            eprintln!("{error}");
            std::process::exit(1);
        }
        super::lift_open_files();
        let report = Report::begin(name, self.record, steered_to);
        super::pin(self.readers_core);
        report
    }
}
