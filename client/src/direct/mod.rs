//! The first level of the key: a compile is recognised by its command and its source, without starting a process.
//!
//! A [`Manifest`] is kept under the [`key`] of a call: for each set of headers that was seen with it, what they held, where
//! the compiler looked in vain, and the action that this came to. If everything is still so, the action is what
//! preprocessing would come to, and its result is asked for. If not, the call is preprocessed ([`crate::prepare`]), and what
//! is seen then is added. All paths in a manifest are virtual, so it serves every checkout, and every machine that
//! shares a cache.
//!
//! Whether a file is what it was is asked of the file system ([`check`]); what it holds is read once per change and
//! remembered by its stamp ([`memo`]).

pub mod call;
pub mod check;
pub mod depfile;
pub mod hashes;
pub mod key;
pub mod manifest;
pub mod memo;

pub use check::{Checked, Misfit};
pub use hashes::Hashes;
pub use manifest::{Entry, Manifest};
