//! Where answers are kept: the local folder, other folders, servers, object stores.

pub mod breaker;
mod contact;
mod execute;
mod folder;
mod objects;
mod packed;
mod packs;
mod progress;
mod server;
mod stack;
mod upload;
mod watch;

use bytes::Bytes;
use castwork_cas::{Digest, DigestFunction};
use castwork_proto::reapi;

use crate::action::OBJECT;
use crate::reason::Reason;

pub use contact::{Inputs, Server};
pub use folder::FolderTier;
pub use objects::ObjectsTier;
pub use server::{First, ServerTier};
pub use stack::{Remote, Stack};

/// Most bytes of an object or of messages that are taken from anywhere.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 30;

/// The steps in which a server is given something.
const ASK_LACKING: &str = "ask the server what it lacks";
const UPLOAD: &str = "upload";
const GIVE: &str = "give the server a result";

/// Most files of an answer.
const OUTPUTS_MAX: usize = 256;

/// What came of a call that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The files that it left; of a compile of C or C++ the object alone.
    pub outputs: Vec<Output>,
    /// What it printed to standard output.
    pub stdout: Bytes,
    /// What it printed to standard error, with virtual names of files.
    pub stderr: Bytes,
}

/// A file that a call left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it is called in the result.
    pub name: String,
    /// What it holds.
    pub data: Bytes,
    /// Whether it may be run as a program.
    pub is_executable: bool,
}

impl Answer {
    /// What came of a compile of C or C++.
    pub fn of_object(object: Bytes, stdout: Bytes, stderr: Bytes) -> Self {
        let outputs = vec![Output { name: OBJECT.to_owned(), data: object, is_executable: false }];
        Self { outputs, stdout, stderr }
    }

    /// The file of a name.
    pub fn output(&self, name: &str) -> Option<&Output> {
        self.outputs.iter().find(|output| output.name == name)
    }

    /// The object, if it came of a compile of C or C++.
    pub fn object(&self) -> Option<&Bytes> {
        self.output(OBJECT).map(|output| &output.data)
    }
}

/// Why a tier has no answer where it might have had one; the next is asked.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// The store failed.
    #[error("{step}")]
    Store {
        /// What was tried.
        step: &'static str,
        /// What the store said.
        #[source]
        source: castwork_cas::StoreError,
    },
    /// The server took longer than is waited.
    #[error("{step} took too long")]
    TooLate {
        /// What was tried.
        step: &'static str,
    },
    /// The server refused to run the action, or failed to.
    #[error("execution ended with {code}: {message}")]
    Execution {
        /// The gRPC code, in words.
        code: String,
        /// What the server said.
        message: String,
        /// Whether others will be refused likewise, for a while.
        is_lasting: bool,
    },
    /// The worker's compiler ended with another code than 0, or its answer is not whole.
    #[error("{0}")]
    Unfit(&'static str),
}

impl TierError {
    /// The error of a step at a store.
    pub fn at(step: &'static str) -> impl FnOnce(castwork_cas::StoreError) -> Self {
        move |source| Self::Store { step, source }
    }

    /// Whether the server or store is not there, so that there is no use in asking it for something else.
    pub fn is_down(&self) -> bool {
        let Self::Store { source: castwork_cas::StoreError::Remote { .. }, .. } = self else {
            return matches!(self, Self::TooLate { .. });
        };
        !self.is_refusal()
    }

    /// Whether the server is there and does not take what it is given, for want of room or of a right: what it has, it may
    /// still hand out.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Store { source: castwork_cas::StoreError::Full { .. }, .. } => true,
            Self::Store { step, source: castwork_cas::StoreError::Remote { source, .. } } => {
                [ASK_LACKING, UPLOAD, GIVE].contains(step)
                    && matches!(
                        source.code(),
                        tonic::Code::PermissionDenied
                            | tonic::Code::Unauthenticated
                            | tonic::Code::ResourceExhausted
                            | tonic::Code::FailedPrecondition
                            | tonic::Code::InvalidArgument
                            | tonic::Code::Unimplemented
                    )
            }
            _ => false,
        }
    }

    /// The name to count it under.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Store { step, source: castwork_cas::StoreError::Remote { source, .. } } => {
                Reason::of(format!("{step}: {}", code_name(source.code())))
            }
            Self::Store { step, source: castwork_cas::StoreError::Full { .. } } => {
                Reason::of(format!("{step}: disk full"))
            }
            Self::Store { step, .. } => Reason::new(step),
            Self::TooLate { step } => Reason::of(format!("{step}: took too long")),
            Self::Execution { code, .. } => Reason::of(format!("remote execution: {code}")),
            Self::Unfit(reason) => Reason::new(reason),
        }
    }
}

/// A gRPC code as it is written in the specification.
pub fn code_name(code: tonic::Code) -> String {
    let camel = format!("{code:?}");
    let mut name = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The blobs of an answer, and the result that names them.
pub fn to_result(answer: &Answer) -> (reapi::ActionResult, Vec<(Digest, Bytes)>) {
    let mut blobs = Vec::new();
    let mut named = |data: &Bytes| {
        let digest = Digest::of(DigestFunction::Sha256, data);
        blobs.push((digest, data.clone()));
        Some(digest.to_proto())
    };
    let result = reapi::ActionResult {
        output_files: answer
            .outputs
            .iter()
            .map(|output| reapi::OutputFile {
                path: output.name.clone(),
                digest: named(&output.data),
                is_executable: output.is_executable,
                ..reapi::OutputFile::default()
            })
            .collect(),
        stdout_digest: Some(&answer.stdout).filter(|data| !data.is_empty()).and_then(&mut named),
        stderr_digest: Some(&answer.stderr).filter(|data| !data.is_empty()).and_then(&mut named),
        ..made_here()
    };
    (result, blobs)
}

/// A result that says who made it.
fn made_here() -> reapi::ActionResult {
    reapi::ActionResult {
        execution_metadata: Some(reapi::ExecutedActionMetadata {
            worker: "castwork client".to_owned(),
            ..reapi::ExecutedActionMetadata::default()
        }),
        ..reapi::ActionResult::default()
    }
}

/// Where the parts of an answer are: in the result itself, or in a blob.
pub enum Part {
    /// Here.
    Inline(Bytes),
    /// There.
    Blob(Digest),
}

/// The parts of an answer.
pub struct Parts {
    /// The files, without what they hold, and where that is.
    pub outputs: Vec<(Output, Part)>,
    /// Standard output.
    pub stdout: Part,
    /// Standard error.
    pub stderr: Part,
}

/// Reads where the parts of an answer are.
///
/// # Errors
/// [`TierError::Unfit`] if it isn't the result of a call that succeeded and left files.
pub fn parts(result: &reapi::ActionResult) -> Result<Parts, TierError> {
    if result.exit_code != 0 {
        return Err(TierError::Unfit("remote compile that failed"));
    }
    if !(1..=OUTPUTS_MAX).contains(&result.output_files.len()) {
        return Err(TierError::Unfit("result without its object"));
    }
    let digest = |digest: &reapi::Digest| {
        let unfit = TierError::Unfit("result with a digest that is none");
        let digest = Digest::from_proto(digest, DigestFunction::Sha256).map_err(|_| unfit)?;
        let is_small = digest.size_bytes() <= OUTPUT_BYTES_MAX;
        is_small.then_some(digest).ok_or(TierError::Unfit("result with an output that is too large"))
    };
    let file = |file: &reapi::OutputFile| {
        let said = digest(file.digest.as_ref().ok_or(TierError::Unfit("result without its object"))?)?;
        let is_here = Digest::of(DigestFunction::Sha256, &file.contents) == said;
        let part = if is_here { Part::Inline(file.contents.clone()) } else { Part::Blob(said) };
        let (name, is_executable) = (file.path.clone(), file.is_executable);
        Ok((Output { name, data: Bytes::new(), is_executable }, part))
    };
    let outputs = result.output_files.iter().map(file).collect::<Result<_, TierError>>()?;
    let size = |file: &reapi::OutputFile| file.digest.as_ref().map_or(0, |digest| digest.size_bytes);
    let bytes = result.output_files.iter().map(size).try_fold(0_i64, i64::checked_add);
    if bytes.and_then(|bytes| u64::try_from(bytes).ok()).is_none_or(|bytes| bytes > 2 * OUTPUT_BYTES_MAX) {
        return Err(TierError::Unfit("result with outputs that are too large"));
    }
    let stream = |raw: &Bytes, blob: &Option<reapi::Digest>| match blob {
        Some(blob) if raw.is_empty() => digest(blob).map(Part::Blob),
        _ => Ok(Part::Inline(raw.clone())),
    };
    let stdout = stream(&result.stdout_raw, &result.stdout_digest)?;
    let stderr = stream(&result.stderr_raw, &result.stderr_digest)?;
    Ok(Parts { outputs, stdout, stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_without_its_object_or_with_a_failure_is_no_answer() {
        let answer = Answer::of_object("o".into(), Bytes::new(), "w".into());
        let (result, blobs) = to_result(&answer);
        assert_eq!(blobs.len(), 2);
        assert!(parts(&result).is_ok());
        assert!(parts(&reapi::ActionResult { exit_code: 1, ..result.clone() }).is_err());
        assert!(parts(&reapi::ActionResult { output_files: Vec::new(), ..result.clone() }).is_err());
        let mut lying = result;
        lying.output_files[0].contents = "not o".into();
        assert!(
            matches!(parts(&lying).unwrap().outputs[0].1, Part::Blob(_)),
            "bytes that are not the digest's don't count"
        );
    }

    #[test]
    fn codes_are_named_as_in_the_specification() {
        assert_eq!(code_name(tonic::Code::FailedPrecondition), "FAILED_PRECONDITION");
        assert_eq!(code_name(tonic::Code::Ok), "OK");
    }
}
