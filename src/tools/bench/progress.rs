//! Progress on standard error: a bar on a terminal, else one line a step.

use std::{
    io::{IsTerminal as _, stderr},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressStyle};

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(super) fn new(steps: u64) -> Self {
        let template = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} [{elapsed}]");
        let style = template.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = stderr().is_terminal().then(|| ProgressBar::new(steps).with_style(style));
        Self { bar, started: Instant::now() }
    }

    /// Shows the start of a step.
    pub(super) fn step(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.set_message(text.to_owned());
            }
            None => eprintln!("{:>4} s  {text}", self.started.elapsed().as_secs()),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
