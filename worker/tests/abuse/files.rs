//! E1 to E3, E8, E25: files of the worker, of the machine, and of the content store.

use castwork_worker::sandbox::{Kind, Sandbox as _};

use crate::common::{filters_only, text};
use crate::trial::Trial;

#[tokio::test]
async fn e1_secrets_of_the_worker() {
    let Some(trial) = Trial::begin().await else { return };
    let data = trial.stage.folder.path().display();
    let script = format!(
        "for path in /etc/shadow /root /home {data} {data}/cas {data}/worker-id /proc/1/environ /proc/1/root \
            /proc/1/cwd /proc/1/fd /proc/2/environ /sys /run /var/lib /var/run /tmp/.X11-unix /mnt /srv /boot; do
            cat $path/* $path 2>/dev/null && echo $path DONE; ls -A $path/. 2>/dev/null | grep . && echo $path DONE
         done; echo tried"
    );
    Trial::refused(&trial.script(&script).await, 1);
    trial.contained("E1").await;
}

#[tokio::test]
async fn e2_writing_to_the_system_and_to_inputs() {
    let Some(trial) = Trial::begin().await else { return };
    trial.stage.input("in", "original");
    let script = "for path in / /usr /usr/bin /usr/lib /etc /bin /lib /opt /dev /proc /dev/null/x; do
            (echo x > $path/castwork-was-here) 2>/dev/null && echo $path DONE
            chmod 777 $path 2>/dev/null && echo mode of $path DONE; done
        chmod u+w in && echo changed > in && cat in && truncate -s 0 in && rm in && mkdir in";
    Trial::refused(&trial.script(script).await, 1);
    assert!(!std::path::Path::new("/usr/castwork-was-here").exists());
    trial.contained("E2").await;
}

#[tokio::test]
async fn e3_writing_to_an_input_through_another_name() {
    let Some(trial) = Trial::begin().await else { return };
    trial.stage.input("in", "original");
    let script = "mkdir out && ln in out/linked && chmod u+w out/linked && echo more >> out/linked
        ln -s in soft && echo soft >> soft; mv in out/moved && echo moved >> out/moved
        exec 3<> out/linked && echo held >&3; touch -d 2001-01-01 out/moved; chmod 000 out/moved; echo tried";
    Trial::refused(&trial.script(script).await, 1);
    trial.contained("E3").await;
}

#[tokio::test]
async fn e8_bits_and_attributes_that_no_output_may_have() {
    let Some(trial) = Trial::begin().await else { return };
    let ended = trial.program("modes", "").await;
    Trial::refused(&ended, 13);
    let kind = ended.root.kind_of("out").unwrap();
    assert_eq!(kind, Some(Kind::File { size_bytes: 0, is_executable: true }));
    drop(ended);
    trial.contained("E8").await;
}

#[tokio::test]
async fn e25_the_kernel_by_its_files() {
    let Some(trial) = Trial::begin().await else { return };
    Trial::refused(&trial.program("machine", "").await, 22);
    assert!(trial.stage.sandbox.level() != "none");
    trial.contained("E25").await;
}

#[tokio::test]
async fn e24_the_environment_of_the_worker() {
    let Some(trial) = Trial::begin().await else { return };
    let mut spec = trial.stage.shell("");
    spec.arguments = vec!["/usr/bin/env".to_owned()];
    spec.environment = vec![("ONLY".to_owned(), "this".to_owned())];
    let said = text(&trial.stage.run(&spec).await.stdout);
    // Without a `/tmp` of its own an action is told where its temporary files can go.
    let kept: Vec<_> = said.lines().filter(|line| !(filters_only() && line.starts_with("TMPDIR="))).collect();
    assert_eq!(kept, ["ONLY=this"]);
    trial.contained("E24").await;
}
