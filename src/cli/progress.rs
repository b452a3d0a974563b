//! A progress bar on stderr, where that is a terminal and the work takes long enough to wonder.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Below this many bytes no bar is shown: the work is done before it could be read.
const WORTH_SHOWING: usize = 256 << 20;

/// A bar.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    template: &'static str,
    least: usize,
}

impl Progress {
    /// A bar over bytes. It shows nothing until it is told how much there is to do.
    pub fn new(what: &'static str) -> Progress {
        Progress::hidden(what, "{msg} {wide_bar} {bytes}/{total_bytes} {eta}", WORTH_SHOWING)
    }

    /// A bar over tokens, each of which takes so long that a few are worth showing.
    pub fn tokens(what: &'static str) -> Progress {
        Progress::hidden(what, "{msg} {wide_bar} {pos}/{len} {eta}", 1)
    }

    fn hidden(what: &'static str, template: &'static str, least: usize) -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Progress { bar, what, template, least }
    }

    /// So many of so many are done.
    pub fn update(&mut self, done: usize, all: usize) {
        if self.bar.length().is_none() {
            self.bar.set_length(all as u64);
            if all >= self.least && std::io::stderr().is_terminal() {
                if let Ok(style) = ProgressStyle::with_template(self.template) {
                    self.bar.set_style(style);
                }
                self.bar.set_message(self.what);
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        }
        self.bar.set_position(done as u64);
    }
}

/// A line that says what is going on, on a terminal.
pub fn spinner() -> ProgressBar {
    let shown = std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(None, target).with_style(ProgressStyle::default_spinner())
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
