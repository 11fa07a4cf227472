//! The environment of a compile: what a compiler reads of it is in the key, and nothing else.

use std::collections::BTreeMap;

use crate::command_line::Dialect;
use crate::local::Platform;
use crate::reason::Reason;
use crate::toolchain::{ACTION_PATH, CACHES, Messages, Toolchain, Travel};

/// What a variable that compilers read means to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Set to anything, the call is passed through.
    Refused,
    /// Goes into the action as it is.
    Key,
    /// Goes into the action if messages are coloured.
    KeyIfColored,
    /// Goes into the action if the source asks for a date.
    KeyIfDated,
}

/// The variables that gcc, clang and the assembler read, but for those of the locale, `PATH` and `TMPDIR`, which
/// are looked at by what they do.
pub const VARIABLES: &[(&str, Reading)] = &[
    ("CPATH", Reading::Refused),
    ("C_INCLUDE_PATH", Reading::Refused),
    ("CPLUS_INCLUDE_PATH", Reading::Refused),
    ("OBJC_INCLUDE_PATH", Reading::Refused),
    ("OBJCPLUS_INCLUDE_PATH", Reading::Refused),
    ("GCC_EXEC_PREFIX", Reading::Refused),
    ("COMPILER_PATH", Reading::Refused),
    // To gcc the same as `LIBRARY_PATH`, which people set; this one hardly anybody knows.
    ("LPATH", Reading::Refused),
    ("DEPENDENCIES_OUTPUT", Reading::Refused),
    ("SUNPRO_DEPENDENCIES", Reading::Refused),
    ("GCC_COMPARE_DEBUG", Reading::Refused),
    ("GCC_EXTRA_DIAGNOSTIC_OUTPUT", Reading::Refused),
    ("EXPERIMENTAL_SARIF_SOCKET", Reading::Refused),
    ("GCC_ROOT", Reading::Refused),
    ("CCC_OVERRIDE_OPTIONS", Reading::Refused),
    ("CCC_PRINT_OPTIONS", Reading::Refused),
    ("CCC_PRINT_OPTIONS_FILE", Reading::Refused),
    ("CC_PRINT_OPTIONS", Reading::Refused),
    ("CC_PRINT_HEADERS", Reading::Refused),
    ("CC_LOG_DIAGNOSTICS", Reading::Refused),
    ("CLANG_CONFIG_FILE_SYSTEM_DIR", Reading::Refused),
    ("CLANG_CONFIG_FILE_USER_DIR", Reading::Refused),
    ("CLANG_MODULE_CACHE_PATH", Reading::Refused),
    ("LIBCLANG_DISABLE_CRASH_RECOVERY", Reading::Refused),
    ("RC_DEBUG_OPTIONS", Reading::Refused),
    ("COMPILER_RT_DEBUG", Reading::Refused),
    ("MACOSX_DEPLOYMENT_TARGET", Reading::Key),
    ("IPHONEOS_DEPLOYMENT_TARGET", Reading::Key),
    ("SDKROOT", Reading::Key),
    ("GCC_URLS", Reading::Key),
    ("TERM_URLS", Reading::Key),
    ("GCC_COLORS", Reading::KeyIfColored),
    (DATE, Reading::KeyIfDated),
];

/// The variables that clang-cl reads beside those, and which decide where it looks for headers.
pub const MSVC_VARIABLES: &[(&str, Reading)] = &[
    ("CL", Reading::Refused),
    ("_CL_", Reading::Refused),
    ("INCLUDE", Reading::Key),
    ("EXTERNAL_INCLUDE", Reading::Key),
    ("VCToolsInstallDir", Reading::Key),
    ("VCINSTALLDIR", Reading::Key),
    ("VSINSTALLDIR", Reading::Key),
    ("VCToolsVersion", Reading::Key),
    ("WindowsSdkDir", Reading::Key),
    ("WindowsSDKVersion", Reading::Key),
    ("UniversalCRTSdkDir", Reading::Key),
    ("UCRTVersion", Reading::Key),
];

/// Lists of folders that are no lists if they are empty.
const EMPTY_IS_NOTHING: [&str; 5] =
    ["CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "OBJCPLUS_INCLUDE_PATH"];

/// The variable that stands for the date in what is compiled.
pub const DATE: &str = "SOURCE_DATE_EPOCH";

/// What of a compile decides about its environment.
pub struct Reader<'a> {
    /// The compiler.
    pub toolchain: &'a Toolchain,
    /// How its messages look here.
    pub messages: &'a Messages,
    /// Whether messages are coloured.
    pub is_colored: bool,
    /// Whether the source asks for a date.
    pub holds_date: bool,
    /// Set to the project's root if the object belongs to its place in ways that the action can't express.
    pub place: Option<&'a str>,
    /// Whether the object is shared though what is said when linking may name the folder it was compiled in.
    pub shares_link_time: bool,
}

/// Refuses what can't be in a key.
///
/// # Errors
/// The reason to pass through, naming the variable.
pub fn check(variable: impl Fn(&str) -> Option<String>) -> Result<(), Reason> {
    // Empty, most of them name the working folder, or a file without a name.
    let set = |name: &str| {
        variable(name).is_some_and(|value| !(value.is_empty() && EMPTY_IS_NOTHING.contains(&name)))
    };
    match VARIABLES.iter().find(|(name, reading)| *reading == Reading::Refused && set(name)) {
        Some((name, _)) => Err(Reason::of(format!("`{name}` is set"))),
        None => Ok(()),
    }
}

/// Refuses what clang-cl takes further words from.
///
/// # Errors
/// The reason to pass through, naming the variable.
pub fn check_msvc(variable: impl Fn(&str) -> Option<String>) -> Result<(), Reason> {
    let refused = MSVC_VARIABLES.iter().filter(|(_, reading)| *reading == Reading::Refused);
    match refused.map(|(name, _)| *name).find(|name| variable(name).is_some()) {
        Some(name) => Err(Reason::of(format!("`{name}` is set"))),
        None => Ok(()),
    }
}

/// What clang-cl goes by in this environment, by name: its variables, and where on `PATH` there is a `cl.exe`, beside which
/// it looks for headers.
pub fn of_msvc(variable: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let known = MSVC_VARIABLES.iter().filter(|(_, reading)| *reading == Reading::Key);
    let mut set: BTreeMap<String, String> =
        known.filter_map(|(name, _)| Some(((*name).to_owned(), variable(name)?))).collect();
    let search = variable("PATH").unwrap_or_default();
    let folders = Platform::split_path(search.as_ref());
    let with_cl: Vec<String> = folders
        .iter()
        .filter(|folder| folder.join("cl.exe").exists())
        .map(|folder| folder.to_string_lossy().into_owned())
        .collect();
    if !with_cl.is_empty() {
        set.insert("CASTWORK_CL_EXE".to_owned(), with_cl.join("\n"));
    }
    set
}

/// The environment of the action.
///
/// # Errors
/// The reason to pass through.
pub fn of_action(
    reader: &Reader<'_>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Reason> {
    let mut action = BTreeMap::new();
    let mut set = |name: &str, value: String| action.insert(name.to_owned(), value);
    let path = match &reader.toolchain.assembler_folder {
        Some(folder) => format!("{}:{ACTION_PATH}", folder.display()),
        None => ACTION_PATH.to_owned(),
    };
    set("PATH", path);
    set(
        "LC_ALL",
        match reader.messages {
            Messages::Ascii => "C".to_owned(),
            Messages::Utf8 => "C.UTF-8".to_owned(),
            // Not a locale, but a name for one: such an action is never sent away.
            Messages::Translated(locale) => locale.clone(),
        },
    );
    if let Travel::Along(luggage) = &reader.toolchain.travel
        && let Some(folders) = &luggage.library_path
    {
        set("LD_LIBRARY_PATH", folders.clone());
    }
    if reader.toolchain.mode.is_some() {
        for name in CACHES {
            set(name, "/tmp/cache".to_owned());
        }
    }
    if let Some(place) = reader.place {
        set("CASTWORK_PLACE", place.to_owned());
    }
    if reader.shares_link_time {
        set("CASTWORK_SHARE_LTO", "yes".to_owned());
    }
    if reader.toolchain.dialect == Dialect::Msvc {
        for (name, value) in of_msvc(&variable) {
            set(&name, value);
        }
    }
    for (name, reading) in VARIABLES {
        let is_read = match reading {
            Reading::Refused => false,
            Reading::Key => true,
            Reading::KeyIfColored => reader.is_colored,
            Reading::KeyIfDated => reader.holds_date,
        };
        if let Some(value) = variable(name).filter(|_| is_read) {
            set(name, value);
        }
    }
    if reader.holds_date && !(action.contains_key(DATE) && reader.toolchain.has_source_date_epoch()) {
        return Err("`__DATE__` or `__TIME__`".into());
    }
    Ok(action)
}

/// A variable of this process; one that is not Unicode counts as set to something that nobody has.
pub fn of_process(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}
