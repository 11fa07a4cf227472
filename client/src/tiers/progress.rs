//! Says how far an upload is, if it takes long: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::run::complain;

/// Uploads shorter than this say nothing.
const SILENT: Duration = Duration::from_secs(1);

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of an upload.
pub(super) struct Progress {
    total_bytes: u64,
    done_bytes: u64,
    begun: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins an upload.
    pub(super) fn new(total_bytes: u64) -> Self {
        let now = Instant::now();
        Self { total_bytes, done_bytes: 0, begun: now, last_line: now, bar: None }
    }

    /// So many bytes more are there.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        if self.begun.elapsed() < SILENT {
            return;
        }
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let style =
                    ProgressStyle::with_template("castwork: uploading {bar:30} {bytes}/{total_bytes}");
                ProgressBar::new(self.total_bytes)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            });
            bar.set_position(self.done_bytes);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            complain(&format!(
                "uploaded {} of {} MB",
                self.done_bytes / 1_000_000,
                self.total_bytes / 1_000_000
            ));
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
