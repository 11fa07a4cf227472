//! Outputs: collected from what the command left (`collect`), then uploaded (`upload`).

mod collect;
mod upload;

pub(crate) use collect::{Collected, collect};
pub(crate) use upload::upload;
