//! The rules that come with us.
//!
//! The variables of each were found by watching `getenv` in the tool; for Cython they are Python's.

use super::nvcc::WRITTEN;
use super::rule::{COMPILER, Rule};
use crate::environment::VARIABLES;

/// What any program's loader, C library and locale read.
const COMMON: [&str; 12] = [
    "PATH",
    "PWD",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "LD_*",
    "LOCPATH",
    "NLSPATH",
    "TMPDIR",
    "TMP",
    "TEMP*",
    "GLIBC_TUNABLES",
];

/// What compilers read beyond what is in the keys of compiles.
const OF_COMPILERS: [&str; 16] = [
    "LIBRARY_PATH",
    "BINUTILS_ROOT",
    "FORCE_CLANG_DIAGNOSTICS_CRASH",
    "LLVM_*",
    "CLANG_*",
    "GCC_*",
    "G++_ROOT",
    "CCC_*",
    "CC_*",
    "COLLECT_*",
    "ROCM_PATH",
    "DEB_BUILD_OPTIONS",
    "AS_*",
    "TERM",
    "COLUMNS",
    "NO_COLOR",
];

/// The rule of a name, if one is shipped.
pub fn find(name: &str) -> Option<Rule> {
    all().into_iter().find(|rule| rule.is_for(name))
}

/// All of them.
pub fn all() -> Vec<Rule> {
    vec![castxml(), swig(), protoc(), cython(), moc(), assembler(), nvcc()]
}

/// Variables, with those that any program's loader, C library and locale read.
pub fn with_common(variables: Vec<String>) -> Vec<String> {
    variables.into_iter().chain(texts(&COMMON)).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn rule(name: &str, tools: &[&str], variables: &[&str], programs: &[&str]) -> Rule {
    Rule {
        name: name.to_owned(),
        tools: texts(tools),
        environment: Some(texts(&COMMON).into_iter().chain(texts(variables)).collect()),
        programs: Some(texts(programs)),
        makes_anew: true,
        is_known: true,
        ..Rule::default()
    }
}

/// It starts the compiler that it emulates to ask what that predefines, and where its headers are.
fn castxml() -> Rule {
    let mut rule = rule("castxml", &["castxml"], &["CASTXML_*"], &["castxml", COMPILER, "cc1", "cc1plus"]);
    add_compilers(&mut rule);
    // What the processor can do is seen by nobody.
    rule.refused = texts(&["-march=native", "-mtune=native", "-mcpu=native", "-fmodules", "-fcxx-modules"]);
    rule.moves = true;
    rule.is_castxml = true;
    rule
}

/// Adds the variables that compilers read.
fn add_compilers(rule: &mut Rule) {
    if let Some(variables) = &mut rule.environment {
        variables.extend(VARIABLES.iter().map(|(name, _)| (*name).to_owned()));
        variables.extend(texts(&OF_COMPILERS));
    }
}

fn swig() -> Rule {
    let mut rule = rule(
        "swig",
        &["swig", "swig2.0", "swig3.0", "swig4.0"],
        &["SWIG_LIB", "SWIG_FEATURES", "CCACHE_OUTFILES"],
        &[],
    );
    rule.moves = true;
    rule
}

/// Plug-ins are programs of others.
fn protoc() -> Rule {
    let mut rule = rule("protoc", &["protoc"], &["GPB_*"], &[]);
    rule.moves = true;
    rule
}

fn cython() -> Rule {
    let tools = ["cython", "cython3"];
    let variables = ["PYTHON*", "__PYVENV_LAUNCHER__", "OPENSSL_*", "HOME", "CYTHON*", "VIRTUAL_ENV"];
    let mut rule = rule("cython", &tools, &variables, &["cython", "cython3", "python*", "uname"]);
    rule.may_be_script = true;
    // By when files were changed.
    rule.refused = texts(&["-t", "--timestamps"]);
    rule
}

/// Qt's name for it may be a link to a program that chooses one of several.
fn moc() -> Rule {
    let variables = ["CPATH", "CPLUS_INCLUDE_PATH", "HOME", "XDG_*", "QT*", "QML*"];
    rule("moc", &["moc", "moc-qt5", "moc-qt6"], &variables, &["moc", "qtchooser"])
}

fn assembler() -> Rule {
    let tools = ["as", "x86_64-linux-gnu-as", "aarch64-linux-gnu-as"];
    let mut rule = rule("as", &tools, &["SOURCE_DATE_EPOCH", "AS_*"], &[]);
    // A listing may hold the time, and statistics do.
    rule.refused = texts(&["-a", "--statistics"]);
    rule
}

/// It has a shell start the compiler for the host and its own parts, and hands on to them all variables that it has.
fn nvcc() -> Rule {
    let parts = ["nvcc", "cudafe++", "cicc", "ptxas", "fatbinary", "bin2c"];
    let others = ["sh", "dash", "bash", COMPILER, "cc1", "cc1plus", "as", "*-as"];
    let programs: Vec<&str> = parts.into_iter().chain(others).collect();
    let of_parts = [
        "CUDA_*",
        "NV_*",
        "_NVCC_*",
        "NVVM_*",
        "LIBNVVM_*",
        "EDG_*",
        "USR_INCLUDE",
        "CAN_FINALIZE_DEBUG",
        "FINALIZER_*",
        "NOCOLOR",
        "OPENSSL_*",
        "MALLOC_*",
    ];
    let of_shells =
        ["HOME", "ENV", "IFS", "PS4", "BASH*", "SHELLOPTS", "POSIXLY_CORRECT", "CDPATH", "GLOBIGNORE"];
    let variables: Vec<&str> = [&WRITTEN[..], &of_parts, &of_shells].into_iter().flatten().copied().collect();
    let mut rule = rule("nvcc", &["nvcc"], &variables, &programs);
    add_compilers(&mut rule);
    // What says how long something took, or what would be done; what runs the program, or removes files; what depends on
    // how many processors there are, and on who else makes use of them.
    let refused = ["time", "fdevice-time-trace", "dryrun", "run", "clean", "split-compile", "jobserver"];
    rule.refused = refused.iter().flat_map(|flag| [format!("-{flag}"), format!("--{flag}")]).collect();
    rule.is_nvcc = true;
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_known_by_their_names() {
        for (name, rule) in
            [("/usr/bin/castxml", "castxml"), ("moc", "moc"), ("as", "as"), ("/opt/cuda/bin/nvcc", "nvcc")]
        {
            assert_eq!(find(name).map(|found| found.name).as_deref(), Some(rule));
        }
        assert_eq!(find("castxml-gui"), None);
        assert_eq!(find("g++"), None);
    }
}
