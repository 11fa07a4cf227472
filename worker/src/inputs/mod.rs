//! Inputs: fetched into the local CAS (`fetch`), planned (`plan`), laid out (`layout`).

mod fetch;
mod layout;
mod plan;

pub(crate) use fetch::Fetcher;
pub(crate) use layout::lay_out;
pub(crate) use plan::{Plan, leads_out};
