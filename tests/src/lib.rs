//! What tests of the whole share: where the programs are, a farm of them, running clients against it, and how a test
//! is skipped.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bare;
pub mod bazel;
mod caller;
pub mod code;
mod farm;
mod finish;
mod parallel;
mod program;
mod skip;

pub use caller::{Caller, item, pieces, write_name};
pub use farm::{Farm, Options};
pub use finish::{Finished, finish, finish_following, progress};
pub use parallel::{Event, each};
pub use program::{Program, binary, environment};
pub use skip::{have, skip};
