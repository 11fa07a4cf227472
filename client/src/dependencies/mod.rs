//! What a compile reads: every file, by content, and everything else that its text shows.

mod above;
mod closure;
mod compiled;
mod computed;
mod has_include;
mod includes;
mod lines;
mod listings;
mod literal;
mod looked;
pub(crate) mod makefile;
mod moved;
mod pasted;
mod preprocess;
mod scan;
mod search;
mod statement;
mod text;

pub use closure::{Closure, Input, Link, gather};
pub use compiled::{Unclear, Watch};
pub(crate) use literal::{like_dates, position, reads_like_now};
pub use looked::{Looked, is_file_for_compilers};
pub(crate) use makefile::prerequisites;
