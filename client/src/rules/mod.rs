//! Any tool by a rule: a call is answered from a cache if everything that such a call was seen to depend on is as it was.
//!
//! A [`Rule`] says which tool it is about, and what can't be seen: the variables that the tool reads, what it may start.
//! All else is seen: the tool is run under watch ([`crate::local::witness`]), and what it looked for, read, listed and
//! made is surveyed ([`survey`]) and written down ([`seen`]). A call with the same words and variables ([`asked`]) is
//! answered if all of that is still so ([`answering`]); if not, the tool is run ([`keeping`]).

pub mod account;
pub mod answering;
pub mod asked;
pub mod castxml;
pub mod command;
pub mod essence;
pub mod file;
pub mod globs;
pub mod keeping;
pub mod names;
pub mod nvcc;
pub mod outputs;
pub mod rule;
pub mod seen;
pub mod shipped;
pub mod survey;

pub use rule::Rule;
