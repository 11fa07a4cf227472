//! [`Call`]: what a call read, of a tool that says so itself; for the calls after it to be recognised by.

use std::path::Path;

use super::check::Misfit;
use super::hashes::Hashes;
use super::manifest::place_hash;
use super::memo::Hash;
use crate::paths::Place;

/// What was read by a call that is known but for that. Paths are virtual.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Call {
    /// The digest of the action that it came to, `HASH/SIZE`.
    #[prost(string, tag = "1")]
    pub action: String,
    /// The files.
    #[prost(message, repeated, tag = "2")]
    pub files: Vec<Content>,
    /// Where there must be nothing.
    #[prost(string, repeated, tag = "3")]
    pub absent: Vec<String>,
    /// The variables.
    #[prost(message, repeated, tag = "4")]
    pub variables: Vec<Variable>,
    /// Set if this is right in one place only: the hash of that.
    #[prost(bytes = "vec", tag = "5")]
    pub place: Vec<u8>,
    /// How wide messages may be, if there are any.
    #[prost(string, optional, tag = "6")]
    pub width: Option<String>,
    /// Whether there are messages.
    #[prost(bool, tag = "7")]
    pub has_messages: bool,
}

/// A file and what it held.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Content {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The hash of its content.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
}

/// A variable and what it was.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Variable {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value, if it was set.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
    /// Whether that is a path of which only the virtual name counts.
    #[prost(bool, tag = "3")]
    pub is_path: bool,
}

/// What a call is checked against.
pub struct Here<'a> {
    /// Where it is made.
    pub place: &'a Place,
    /// How wide messages may be.
    pub width: Option<&'a str>,
    /// Its environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Call {
    /// Checks that the call would read the same here and now.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, here: &Here<'_>, hashes: &mut Hashes) -> Result<(), Misfit> {
        if !self.place.is_empty() && self.place != place_hash(here.place) {
            return Err(Misfit::Place);
        }
        if self.has_messages && self.width.as_deref() != here.width {
            return Err(Misfit::Changed("width of messages".to_owned()));
        }
        for variable in &self.variables {
            if variable.value != value_of(&variable.name, variable.is_path, here.place, here.variable) {
                return Err(Misfit::Changed(variable.name.clone()));
            }
        }
        for file in &self.files {
            let path = here.place.real_of(&file.name).ok_or(Misfit::Foreign)?;
            let is_same = hashes.of(&path).is_some_and(|hash: Hash| hash[..] == file.hash);
            if !is_same {
                return Err(Misfit::Changed(file.name.clone()));
            }
        }
        for name in &self.absent {
            let path = here.place.real_of(name).ok_or(Misfit::Foreign)?;
            if Path::new(&path).symlink_metadata().is_ok() {
                return Err(Misfit::Appeared(name.clone()));
            }
        }
        Ok(())
    }

    /// Whether another call says the same of what is read, whatever came of it.
    pub fn reads_the_same(&self, other: &Self) -> bool {
        let action = String::new();
        let without = |call: &Self| Self { action: action.clone(), ..call.clone() };
        without(self) == without(other)
    }
}

/// What a variable is here, as it is compared.
pub fn value_of(
    name: &str,
    is_path: bool,
    place: &Place,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    let value = variable(name)?;
    Some(if is_path && value.starts_with('/') { place.alias(&value) } else { value })
}
