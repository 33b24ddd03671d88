//! What a bench is doing, on standard error: a bar on a terminal, a line for
//! each step elsewhere.

use std::{
    io::{IsTerminal as _, stderr},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressStyle};

/// Tells each step as it begins.
pub struct Progress {
    bar: Option<ProgressBar>,
    begun: Instant,
}

impl Progress {
    /// Over so many steps.
    pub fn new(steps: u64) -> Self {
        let style = "{wide_bar} {pos}/{len} {msg} [{elapsed}]";
        let bar = stderr().is_terminal().then(|| {
            ProgressBar::new(steps).with_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        Self { bar, begun: Instant::now() }
    }

    /// A step begins, and the one before is done.
    pub fn step(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.set_message(text.to_owned());
            }
            None => eprintln!("{:>4} s  {text}", self.begun.elapsed().as_secs()),
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
