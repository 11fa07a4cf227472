//! [`watch`]: the overview, drawn anew as time passes, like `top`.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::call::{Farm, OperatorError};
use super::{json, page};

/// How often what is waited for is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The shortest time between two pages.
const EVERY_MIN: f64 = 0.1;

/// Draws until it is interrupted. To what is no terminal, pages are written one after the other; as JSON, one
/// object a line.
pub(super) async fn watch(farm: &Farm, seconds: f64, as_json: bool) -> Result<u8, OperatorError> {
    let every = Duration::try_from_secs_f64(seconds.max(EVERY_MIN)).unwrap_or(LOOK_EVERY);
    let is_terminal = std::io::stdout().is_terminal();
    // The first answer has to come; after that a server that is away for a while is shown as just that.
    let mut answer: Result<_, OperatorError> = Ok(farm.status().await?);
    loop {
        let page = match &answer {
            Ok(status) if as_json => format!("{}\n", json::status(status)),
            Ok(status) => drawn(&page::status(status), is_terminal),
            Err(error) if as_json => format!("{}\n", serde_json::json!({ "error": error.to_string() })),
            Err(error) => drawn(&format!("{error}\n"), is_terminal),
        };
        let mut out = std::io::stdout();
        if out.write_all(page.as_bytes()).and_then(|()| out.flush()).is_err() {
            // Whoever read it has read enough.
            return Ok(0);
        }
        tokio::time::sleep(every).await;
        answer = farm.status().await;
    }
}

/// A page over the one before: from the top left corner, each line to its end, and nothing left below.
fn drawn(page: &str, is_terminal: bool) -> String {
    if is_terminal { format!("\x1b[H{}\x1b[J", page.replace('\n', "\x1b[K\n")) } else { format!("{page}\n") }
}

#[cfg(test)]
mod tests {
    use super::drawn;

    #[test]
    fn a_terminal_is_drawn_over_and_a_file_gets_page_after_page() {
        assert_eq!(drawn("a\nb\n", true), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(drawn("a\nb\n", false), "a\nb\n\n");
    }
}
