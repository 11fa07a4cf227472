//! Side-by-side measurements: ours and a peer in turn on the same work, quoted as ratios.
//!
//! The machines that this runs on are shared and noisy, so contestants take turns (A B C A B C …),
//! medians are quoted, and each figure stands beside the one it is compared with, from the same run.

pub mod contest;
pub mod decisions;
pub mod execute;
pub mod fairness;
pub mod layout;
pub mod peers;
mod process;
pub mod queue;
pub mod sandbox;
mod simulated;
pub mod spread;
pub mod store;
pub mod table;
pub mod wrapper;
