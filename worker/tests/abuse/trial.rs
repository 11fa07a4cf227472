//! [`Trial`]: a sandbox to attack, and what has to be as before afterwards.

use std::path::Path;

use castwork_worker::sandbox::{Bounds, Ended, RunSpec, Sandbox as _};

use crate::common::{Laid, Stage, filters_only, text, write_down};

/// What an action finds that has done nothing: all that an earlier one could have left.
const SURVEY: &str = "set -- /proc/[0-9]*; echo $#; ls -A /tmp /dev/shm .; umask; ulimit -a; hostname; id
    cat /proc/self/net/dev /proc/self/net/unix /proc/self/net/snmp /proc/sysvipc/* 2>/dev/null; mount | wc -l
    cat /proc/self/net/ip6_flowlabel 2>/dev/null; grep -e flags -e lock /proc/self/fdinfo/0";

/// The same where the machine's own state is to be seen too, which others change.
const SURVEY_IN_THE_OPEN: &str = "ls -A . $TMPDIR; umask; ulimit -a";

fn survey() -> &'static str {
    if filters_only() { SURVEY_IN_THE_OPEN } else { SURVEY }
}

/// A sandbox that is attacked.
pub(crate) struct Trial {
    pub stage: Stage,
    fresh: String,
}

impl Trial {
    /// `None`, with the reason printed, where this machine can't confine anything.
    pub(crate) async fn begin() -> Option<Self> {
        Self::bounded(Bounds::for_this_machine(2)).await
    }

    /// The same, with bounds of its own.
    pub(crate) async fn bounded(bounds: Bounds) -> Option<Self> {
        let stage = Stage::bounded(Vec::new(), bounds).await?;
        let fresh = text(&stage.run(&stage.shell(survey())).await.stdout);
        stage.again();
        Some(Self { stage, fresh })
    }

    /// Has a shell script attack.
    pub(crate) async fn script(&self, script: &str) -> Ended {
        self.stage.run(&self.stage.shell(script)).await
    }

    /// Has one of `programs/` attack, compiled by the action itself.
    pub(crate) async fn program(&self, name: &str, arguments: &str) -> Ended {
        self.script(&self.compiled(name, arguments)).await
    }

    /// The same as something to run later.
    pub(crate) fn prepared(&self, name: &str, arguments: &str) -> RunSpec {
        self.stage.shell(&self.compiled(name, arguments))
    }

    fn compiled(&self, name: &str, arguments: &str) -> String {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/abuse/programs");
        for file in ["try.h", &format!("{name}.c")] {
            self.stage.input(file, &std::fs::read_to_string(programs.join(file)).unwrap());
        }
        format!("cc -w {name}.c -o {name} && exec ./{name} {arguments}")
    }

    /// Checks that as many attempts as there were have failed.
    pub(crate) fn refused(ended: &Ended, attempts: usize) {
        let said = text(&ended.stdout);
        assert!(!said.contains("DONE"), "{said}");
        assert_eq!(said.lines().count(), attempts, "{said}\n{}", text(&ended.stderr));
    }

    /// Checks that no input changed and that the next action finds everything as if there had been
    /// none before it; then writes down that `attack` was contained.
    pub(crate) async fn contained(self, attack: &str) {
        for (path, before) in self.stage.laid() {
            assert_eq!(Laid::of(&path), before, "{}", path.display());
        }
        // There are two places, which take turns.
        for _ in 0..2 {
            self.stage.again();
            let next = text(&self.stage.run(&self.stage.shell(survey())).await.stdout);
            assert_eq!(next, self.fresh, "the next action sees that there was one");
        }
        write_down(attack, self.stage.sandbox.level());
    }
}
