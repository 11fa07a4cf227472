//! What systems of continuous integration call a run and a project, for who has not set it.

use super::Origin;

/// Variables that together name a job's run, by system.
const RUNS: [&[&str]; 7] = [
    &["GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB"],
    &["CI_JOB_ID"],
    &["BUILDKITE_JOB_ID"],
    &["CIRCLE_WORKFLOW_JOB_ID"],
    &["SYSTEM_JOBID"],
    &["TRAVIS_JOB_ID"],
    &["BUILD_TAG"],
];

/// Variables that name the project, by system.
const PROJECTS: [&[&str]; 6] = [
    &["GITHUB_REPOSITORY"],
    &["CI_PROJECT_PATH"],
    &["BUILDKITE_PIPELINE_SLUG"],
    &["CIRCLE_PROJECT_USERNAME", "CIRCLE_PROJECT_REPONAME"],
    &["BUILD_REPOSITORY_NAME"],
    &["TRAVIS_REPO_SLUG"],
];

/// What the system that we run in says for a setting, and by which variable.
pub(super) fn value_of(key: &str, variable: impl Fn(&str) -> Option<String>) -> Option<(String, Origin)> {
    let systems: &[&[&'static str]] = match key {
        "run_id" => &RUNS,
        "project" => &PROJECTS,
        _ => return None,
    };
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let names = systems.iter().find(|names| set(names[0]).is_some())?;
    let values: Vec<_> = names.iter().filter_map(|name| set(name)).collect();
    Some((values.join("-"), Origin::Variable(names[0])))
}
