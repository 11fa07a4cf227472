//! What a compile reads: every file, by content, and everything else that its text shows.

mod closure;
mod has_include;
mod literal;
mod looked;
mod makefile;
mod preprocess;
mod scan;
mod search;
mod text;

pub use closure::{Closure, Input, gather};
pub use looked::{Looked, is_file_for_compilers};
