//! What tests of the whole share: where the programs are, a farm of them, and how a test is skipped.

mod farm;
mod program;
mod skip;

pub use farm::{Farm, Options};
pub use program::{Program, binary};
pub use skip::{have, skip};
