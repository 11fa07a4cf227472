//! `ccache-storage-castwork`: puts a server of ours, or any other that speaks REAPI, behind an unchanged ccache.
//!
//! ccache (4.13 and later) starts it by itself for `remote_storage = castwork://HOST:PORT[/INSTANCE]`, tells it by
//! environment variables where to listen, and has all its processes use the one helper until it has been idle for a
//! while. See ccache's specification of storage helpers.

pub mod protocol;
pub mod storage;

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use castwork_cas::{DigestFunction, Remote, RemoteConfig};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use self::protocol::{Answer, GREETING, Request};
use self::storage::Entries;
use crate::local::endpoint::{Connection, Endpoint};

/// The scheme of the URLs that ccache starts this helper for.
const SCHEME: &str = "castwork://";

/// The longest wait for an answer of the server; ccache's own is shorter, and then it goes on without.
const TIMEOUT: Duration = Duration::from_secs(10);

/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What ccache says to its helper.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    endpoint: String,
    address: String,
    instance: String,
    token: Option<String>,
    /// `None` for never.
    idle: Option<Duration>,
}

impl Setting {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let needed = |name: &str| variable(name).filter(|value| !value.is_empty());
        let endpoint = needed("CRSH_IPC_ENDPOINT").ok_or(
            "CRSH_IPC_ENDPOINT is not set: ccache starts this program, for \
             remote_storage = castwork://HOST:PORT",
        )?;
        let url = needed("CRSH_URL").ok_or("CRSH_URL is not set")?;
        let place = url.strip_prefix(SCHEME).ok_or("the URL is not castwork://HOST:PORT[/INSTANCE]")?;
        let (server, instance) = place.split_once('/').unwrap_or((place, ""));
        let seconds = needed("CRSH_IDLE_TIMEOUT").unwrap_or_else(|| "0".to_owned());
        let seconds: u64 = seconds.parse().map_err(|_| "CRSH_IDLE_TIMEOUT is no number of seconds")?;
        let count: usize = needed("CRSH_NUM_ATTR").and_then(|count| count.parse().ok()).unwrap_or(0);
        let attribute = |wanted: &str| {
            let name =
                |number: &usize| variable(&format!("CRSH_ATTR_KEY_{number}")).as_deref() == Some(wanted);
            (0..count).find(name).and_then(|number| needed(&format!("CRSH_ATTR_VALUE_{number}")))
        };
        Ok(Self {
            endpoint,
            address: format!("grpc://{server}"),
            instance: instance.trim_end_matches('/').to_owned(),
            token: attribute("token").or_else(|| needed("CASTWORK_TOKEN")),
            idle: Some(Duration::from_secs(seconds)).filter(|idle| !idle.is_zero()),
        })
    }
}

/// Serves as ccache's environment variables say, and returns the exit code.
pub fn main() -> u8 {
    match serve_as_told() {
        Ok(()) => 0,
        Err(reason) => {
            crate::run::complain(&format!("ccache-storage-castwork: {reason}"));
            1
        }
    }
}

fn serve_as_told() -> Result<(), String> {
    let setting = Setting::read(|name| std::env::var(name).ok())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("start threads: {error}"))?;
    let served = runtime.block_on(async {
        let remote = Remote::connect_lazy(&RemoteConfig {
            address: setting.address.clone(),
            instance: setting.instance.clone(),
            function: DigestFunction::Sha256,
            token: setting.token.clone(),
            request_metadata: None,
            timeout: TIMEOUT,
        });
        let remote = remote.map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })?;
        let endpoint = Endpoint::listen(&setting.endpoint)
            .map_err(|error| format!("listen at `{}`: {error}", setting.endpoint))?;
        serve(endpoint, Entries::new(remote), setting.idle).await;
        Ok(())
    });
    // A stop does not wait for what others have asked.
    runtime.shutdown_background();
    served
}

/// Serves until a client says stop, or nobody has asked anything for as long as `idle`.
async fn serve(mut endpoint: Endpoint, entries: Entries, idle: Option<Duration>) {
    let activity = Arc::new(Activity::default());
    let (stop, mut stopped) = watch::channel(false);
    loop {
        tokio::select! {
            connection = endpoint.accept() => match connection {
                Ok(connection) => {
                    let (entries, activity, stop) = (entries.clone(), Arc::clone(&activity), stop.clone());
                    tokio::spawn(async move {
                        // Whoever goes away in the middle of something is not told about it.
                        if let Ok(true) = converse(connection, &entries, &activity).await {
                            let _ = stop.send(true);
                        }
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            _ = stopped.changed() => return,
            () = activity.over(idle) => return,
        }
    }
}

/// Answers what one client asks until it goes; whether it wants the helper to end.
async fn converse(mut connection: Connection, entries: &Entries, activity: &Activity) -> io::Result<bool> {
    connection.write_all(&GREETING).await?;
    while let Some(request) = protocol::read(&mut connection).await? {
        let _busy = activity.begin();
        if request == Request::Stop {
            let _ = protocol::write(&mut connection, Answer::Done).await;
            return Ok(true);
        }
        protocol::write(&mut connection, entries.answer(request).await).await?;
    }
    Ok(false)
}

/// When something was asked last, and what is being answered.
#[derive(Default)]
struct Activity(Mutex<(usize, Option<Instant>)>);

struct Busy<'a>(&'a Activity);

impl Activity {
    fn lock(&self) -> std::sync::MutexGuard<'_, (usize, Option<Instant>)> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn begin(&self) -> Busy<'_> {
        self.lock().0 += 1;
        Busy(self)
    }

    /// Returns when nothing has been asked for as long as `idle`.
    async fn over(&self, idle: Option<Duration>) {
        let Some(idle) = idle else { return std::future::pending().await };
        loop {
            let end = {
                let mut state = self.lock();
                let (busy, last) = (state.0, *state.1.get_or_insert_with(Instant::now));
                if busy > 0 { Instant::now() + idle } else { last + idle }
            };
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.0 -= 1;
        state.1 = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Setting, String> {
        Setting::read(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_ccache_says_is_understood() {
        let setting = read(&[
            ("CRSH_IPC_ENDPOINT", "/run/x.sock"),
            ("CRSH_URL", "castwork://host:8980/team/a"),
            ("CRSH_IDLE_TIMEOUT", "600"),
            ("CRSH_NUM_ATTR", "2"),
            ("CRSH_ATTR_KEY_0", "other"),
            ("CRSH_ATTR_VALUE_0", "x"),
            ("CRSH_ATTR_KEY_1", "token"),
            ("CRSH_ATTR_VALUE_1", "hidden"),
        ]);
        let setting = setting.unwrap();
        assert_eq!((setting.address.as_str(), setting.instance.as_str()), ("grpc://host:8980", "team/a"));
        assert_eq!(setting.token.as_deref(), Some("hidden"));
        assert_eq!(setting.idle, Some(Duration::from_secs(600)));
        let plain = read(&[("CRSH_IPC_ENDPOINT", "x"), ("CRSH_URL", "castwork://h:1")]).unwrap();
        assert_eq!((plain.instance.as_str(), plain.token, plain.idle), ("", None, None));
    }

    #[test]
    fn who_starts_it_by_hand_is_told_how_it_is_used() {
        assert!(read(&[]).unwrap_err().contains("remote_storage"));
        assert!(read(&[("CRSH_IPC_ENDPOINT", "x"), ("CRSH_URL", "http://h:1")]).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nobody_has_asked_anything_for_a_while_and_not_while_it_answers() {
        let activity = Activity::default();
        let idle = Duration::from_secs(60);
        let begin = Instant::now();
        let busy = activity.begin();
        tokio::select! {
            () = activity.over(Some(idle)) => panic!("it was busy"),
            () = tokio::time::sleep(idle * 3) => {}
        }
        drop(busy);
        activity.over(Some(idle)).await;
        assert_eq!(begin.elapsed(), idle * 4);
    }
}
