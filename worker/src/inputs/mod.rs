//! Inputs: fetched into the local CAS (`fetch`), planned (`plan`, or `delta` over one of the `bases`), laid out
//! (`layout`); `stage` does all of it for an action.

mod bases;
mod delta;
mod fetch;
mod layout;
mod plan;
mod stage;

pub(crate) use bases::Bases;
pub(crate) use fetch::{Fetcher, Tally};
pub(crate) use plan::{Plan, above_outputs, leads_out};
pub(crate) use stage::{Stage, Staged};
