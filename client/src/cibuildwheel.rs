//! What to set for cibuildwheel, which builds in containers: `castwork env --cibuildwheel`.

use crate::config::{Config, Origin};
use crate::environment;
use crate::launch::quoted;

/// Where links named like the container's compilers are made, in `links` in it: cibuildwheel has another `PATH` for each Python,
/// and that folder comes first in all of them.
const FOLDER: &str = "/opt/castwork";

/// Where cibuildwheel puts the project.
const PROJECT: &str = "/project";

/// Where it shows the machine's own files.
const HOST: &str = "/host";

/// Lines for a shell to `eval`.
pub fn settings(config: &Config) -> String {
    let before = format!(
        "pip install --find-links {{project}}/wheels castwork && mkdir -p {FOLDER}/links && \
         CASTWORK_DIR={FOLDER} castwork env >/dev/null && \
         ln -sf \"$(command -v castwork)\" {FOLDER}/links/castwork"
    );
    let mut inside =
        vec![format!("PATH=\"{FOLDER}/links:$PATH\""), format!("CASTWORK_PROJECT_ROOT={PROJECT}")];
    // What is linked for a wheel is thrown away with its folder.
    let is_asked_not_to = !config.shares_link_time
        && config.origins.get("share_lto").is_some_and(|(_, origin)| *origin != Origin::Default);
    if !is_asked_not_to {
        inside.push("CASTWORK_SHARE_LTO=yes".to_owned());
    }
    let remote = environment::of_process("CASTWORK_REMOTE").filter(|remote| !remote.is_empty());
    if let Some(remote) = &remote {
        let remote = remote.replace("file:///", &format!("file://{HOST}/"));
        inside.push(format!("CASTWORK_REMOTE={}", quoted(&remote)));
    }
    if let Some(run) = &config.run_id {
        // A name for each Python's build, so that each can be asked about.
        let python = "$(python -c \"import sys; print(sys.implementation.cache_tag)\")";
        inside.push(format!("CASTWORK_RUN_ID={}-{python}", quoted(run)));
    }
    if let Some(project) = &config.project {
        inside.push(format!("CASTWORK_PROJECT={}", quoted(project)));
    }
    let hint = if remote.is_some() {
        ""
    } else {
        "# CASTWORK_REMOTE is not set: each container compiles everything anew\n"
    };
    format!(
        "{hint}export CIBW_BEFORE_ALL_LINUX={}\nexport CIBW_ENVIRONMENT_LINUX={}\n\
         # to have a wheel fail whose compiles were not found, though an earlier build had them:\n\
         # export CIBW_TEST_COMMAND_LINUX='castwork report --require-hit-rate 90 --grace-first-run'\n",
        quoted(&before),
        quoted(&inside.join(" "))
    )
}
