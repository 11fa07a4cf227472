//! Reads the URL of an object store, and gathers the credentials that belong to it.

use std::collections::BTreeMap;
use std::time::Duration;

use opendal::{Builder, Operator, services};
use url::{Url, form_urlencoded};

use super::Objects;

/// Where Google's client libraries look for a key; anything else of theirs is found by the library.
const GOOGLE_KEY: &[&str] = &["GOOGLE_APPLICATION_CREDENTIALS"];

/// What names this program's part of GitHub's cache. What is stored changes with it.
const GHA_VERSION: &str = "castwork-1";

/// The value of a variable of the environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// An object store, and what must not be shown of it.
pub(super) struct Place {
    pub(super) operator: Operator,
    pub(super) secrets: Vec<String>,
}

/// A URL as it may be shown: without credentials and without options, which may hold any.
pub(super) fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match plain.split_once("://") {
        // Up to the last one: a password that was not escaped may hold anything.
        Some((scheme, rest)) => {
            format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, place)| place))
        }
        None => plain.rsplit_once('@').map_or(plain, |(_, place)| place).to_owned(),
    }
}

/// Makes what a URL names.
///
/// # Errors
/// In words, what to write instead. Holds no credential.
pub(super) fn open(url: &str, environment: Environment<'_>) -> Result<Place, String> {
    // TLS needs its cryptography; where the program has chosen one already, that stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Its own `install_default` does this only with the kind of TLS that brings cryptography along.
    opendal_http_transport_reqwest::install_default();
    let mut parts = Parts::read(url, environment)?;
    let operator = match parts.url.scheme() {
        "s3" => s3(&mut parts),
        "gs" => gs(&mut parts),
        "azblob" => azblob(&mut parts),
        "webdav+http" | "webdav+https" => webdav(&mut parts),
        "redis" | "rediss" => redis(&mut parts),
        "gha" => gha(&mut parts),
        other => {
            let known = Objects::SCHEMES.join(", ");
            Err(format!("`{other}` is no kind of object store; there are {known}"))
        }
    }?;
    Ok(Place { operator, secrets: parts.secrets })
}

fn s3(parts: &mut Parts<'_>) -> Result<Operator, String> {
    let mut service = services::S3::default().bucket(&parts.host("bucket")?).root(&parts.prefix()?);
    if let Some(endpoint) =
        parts.option("endpoint").or_else(|| parts.variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]))
    {
        service = service.endpoint(&endpoint);
    }
    let region = parts.option("region").or_else(|| parts.variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    // Servers other than Amazon's mostly don't care, but the signature needs one.
    service = service.region(region.as_deref().unwrap_or("us-east-1"));
    if parts.flag("virtual_host")? {
        service = service.enable_virtual_host_style();
    }
    if let Some(class) = parts.option("storage_class") {
        service = service.default_storage_class(&class);
    }
    if parts.flag("anonymous")? {
        service = service.skip_signature();
    } else if let Some(key) = parts.variable(&["AWS_ACCESS_KEY_ID"]) {
        let secret = parts.secret(&["AWS_SECRET_ACCESS_KEY"]);
        let secret = secret.ok_or("`AWS_ACCESS_KEY_ID` is set, but not `AWS_SECRET_ACCESS_KEY`")?;
        service = service.access_key_id(&key).secret_access_key(&secret);
        if let Some(token) = parts.secret(&["AWS_SESSION_TOKEN"]) {
            service = service.session_token(&token);
        }
    }
    parts.build(service)
}

fn gs(parts: &mut Parts<'_>) -> Result<Operator, String> {
    let mut service = services::Gcs::default().bucket(&parts.host("bucket")?).root(&parts.prefix()?);
    if let Some(endpoint) = parts.option("endpoint") {
        service = service.endpoint(&endpoint);
    }
    if let Some(class) = parts.option("storage_class") {
        service = service.default_storage_class(&class);
    }
    if parts.flag("anonymous")? {
        service = service.skip_signature();
    } else if let Some(path) = parts.variable(GOOGLE_KEY) {
        service = service.credential_path(&path);
    }
    parts.build(service)
}

fn azblob(parts: &mut Parts<'_>) -> Result<Operator, String> {
    let connection = parts.secret(&["AZURE_STORAGE_CONNECTION_STRING"]);
    let mut service = match &connection {
        // Its error may quote what it could not read.
        Some(text) => services::Azblob::from_connection_string(text)
            .map_err(|_| "`AZURE_STORAGE_CONNECTION_STRING` can't be read")?,
        None => services::Azblob::default(),
    };
    service = service.container(&parts.host("container")?).root(&parts.prefix()?);
    let account = parts
        .option("account")
        .or_else(|| parts.variable(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]));
    let endpoint = parts.option("endpoint");
    match (endpoint, &account) {
        (Some(endpoint), _) => service = service.endpoint(&endpoint),
        (None, Some(account)) => {
            service = service.endpoint(&format!("https://{account}.blob.core.windows.net"));
        }
        (None, None) if connection.is_some() => {}
        (None, None) => {
            return Err("which account? add `?account=NAME`, or set AZURE_STORAGE_ACCOUNT".to_owned());
        }
    }
    if let Some(account) = &account {
        service = service.account_name(account);
    }
    if let Some(key) = parts.secret(&["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"]) {
        service = service.account_key(&key);
    }
    if let Some(token) = parts.secret(&["AZURE_STORAGE_SAS_TOKEN"]) {
        service = service.sas_token(&token);
    }
    parts.build(service)
}

fn webdav(parts: &mut Parts<'_>) -> Result<Operator, String> {
    let scheme = parts.url.scheme().trim_start_matches("webdav+").to_owned();
    let endpoint = format!("{scheme}://{}", parts.authority("server")?);
    let mut service = services::Webdav::default().endpoint(&endpoint).root(&parts.prefix()?);
    if let Some(user) = parts.user().or_else(|| parts.variable(&["WEBDAV_USERNAME"])) {
        service = service.username(&user);
    }
    if let Some(password) = parts.password().or_else(|| parts.secret(&["WEBDAV_PASSWORD"])) {
        service = service.password(&password);
    }
    if let Some(token) = parts.secret(&["WEBDAV_TOKEN"]) {
        service = service.token(&token);
    }
    parts.build(service)
}

fn redis(parts: &mut Parts<'_>) -> Result<Operator, String> {
    let endpoint = format!("{}://{}", parts.url.scheme(), parts.authority("server")?);
    let prefix = parts.prefix()?;
    let (first, rest) = prefix.split_once('/').unwrap_or((&prefix, ""));
    let (database, prefix) = first.parse().map_or((0, prefix.as_str()), |database| (database, rest));
    let mut service = services::Redis::default().endpoint(&endpoint).db(database).root(prefix);
    if let Some(user) = parts.user().or_else(|| parts.variable(&["REDIS_USERNAME"])) {
        service = service.username(&user);
    }
    if let Some(password) = parts.password().or_else(|| parts.secret(&["REDIS_PASSWORD"])) {
        service = service.password(&password);
    }
    if let Some(days) = parts.option("ttl_days") {
        let days: u32 = days.parse().ok().filter(|days| *days > 0).ok_or("`ttl_days` is a number of days")?;
        service = service.default_ttl(Duration::from_secs(u64::from(days) * 24 * 60 * 60));
    }
    parts.build(service)
}

fn gha(parts: &mut Parts<'_>) -> Result<Operator, String> {
    let token = parts.secret(&["ACTIONS_RUNTIME_TOKEN"]);
    let address = parts.variable(&["ACTIONS_RESULTS_URL", "ACTIONS_CACHE_URL"]);
    let (Some(token), Some(_)) = (token, address) else {
        return Err(
            "GitHub's cache is there only in a job of GitHub Actions, and only if a step has exported \
                    ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL"
                .to_owned(),
        );
    };
    let prefix = parts.prefix()?;
    parts.build(services::Ghac::default().version(GHA_VERSION).runtime_token(&token).root(&prefix))
}

/// A URL that is being read: what is asked for is taken out, and what is left at the end is a mistake.
struct Parts<'a> {
    url: Url,
    environment: Environment<'a>,
    options: BTreeMap<String, String>,
    known: Vec<&'static str>,
    secrets: Vec<String>,
}

impl<'a> Parts<'a> {
    fn read(url: &str, environment: Environment<'a>) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| format!("that is no URL: {error}"))?;
        let mut options = BTreeMap::new();
        for (name, value) in url.query_pairs() {
            if options.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(format!("`{name}` is given twice"));
            }
        }
        if url.fragment().is_some() {
            return Err("a `#` means nothing in the address of an object store".to_owned());
        }
        let secrets = url.password().map(decode).into_iter().collect();
        Ok(Self { url, environment, options, known: Vec::new(), secrets })
    }

    fn option(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.options.remove(name).filter(|value| !value.is_empty())
    }

    fn flag(&mut self, name: &'static str) -> Result<bool, String> {
        match self.option(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(format!("`{name}` is `true` or `false`")),
        }
    }

    /// The first of these variables that is set.
    fn variable(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| (self.environment)(name).filter(|value| !value.is_empty()))
    }

    /// As [`Parts::variable`]; the value will not be shown.
    fn secret(&mut self, names: &[&str]) -> Option<String> {
        let value = self.variable(names)?;
        self.secrets.push(value.clone());
        Some(value)
    }

    fn user(&self) -> Option<String> {
        Some(decode(self.url.username())).filter(|user| !user.is_empty())
    }

    fn password(&self) -> Option<String> {
        self.url.password().map(decode)
    }

    /// What stands where a web address has its host, and nothing beside it.
    fn host(&self, what: &str) -> Result<String, String> {
        let is_alone =
            self.url.port().is_none() && self.url.username().is_empty() && self.url.password().is_none();
        match self.url.host_str() {
            Some(host) if !host.is_empty() && is_alone => Ok(host.to_owned()),
            _ => Err(format!("an address is written {}://{}/prefix", self.url.scheme(), what.to_uppercase())),
        }
    }

    /// Host and port.
    fn authority(&self, what: &str) -> Result<String, String> {
        let host = self.url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| {
            format!("an address is written {}://{}:PORT/prefix", self.url.scheme(), what.to_uppercase())
        })?;
        Ok(self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }

    fn prefix(&self) -> Result<String, String> {
        let prefix = self.url.path().trim_matches('/');
        if prefix.contains('%') || prefix.split('/').any(|part| part == "." || part == "..") {
            return Err("a prefix is made of letters, digits, `-`, `_`, `.` and `/`".to_owned());
        }
        Ok(prefix.to_owned())
    }

    fn build(&mut self, service: impl Builder) -> Result<Operator, String> {
        // A tier's own options are read by whoever made it a tier.
        if let Some(unknown) = self.options.keys().next() {
            let known = self.known.join(", ");
            return Err(format!("there is no option `{unknown}`; there are: {known}"));
        }
        // The library's error may quote its whole configuration; its first sentence does not.
        Operator::new(service).map_err(|error| error.message().to_owned())
    }
}

/// Undoes the escapes that a user's name or password needs in a URL.
fn decode(text: &str) -> String {
    let escaped = format!("v={}", text.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(escaped.as_bytes()).map(|(_, value)| value.into_owned()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn refused(url: &str, variables: &[(&str, &str)]) -> String {
        open(url, &with(variables)).map(drop).expect_err(url)
    }

    #[tokio::test]
    async fn every_kind_is_one_url() {
        let key = "c2VjcmV0";
        let variables: &[(&str, &str)] = &[
            ("AWS_ACCESS_KEY_ID", "us"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
            ("AZURE_STORAGE_KEY", key),
            ("ACTIONS_RUNTIME_TOKEN", "hidden"),
            ("ACTIONS_RESULTS_URL", "https://cache.example/"),
            ("ACTIONS_CACHE_URL", "https://cache.example/"),
        ];
        for (url, root) in [
            ("s3://bucket", "/"),
            ("s3://bucket/some/prefix?endpoint=http://127.0.0.1:9000&region=eu-west-1", "/some/prefix/"),
            ("gs://bucket/prefix?anonymous=true", "/prefix/"),
            ("azblob://container/prefix?account=ours", "/prefix/"),
            ("webdav+http://host:8080/prefix", "/prefix/"),
            ("webdav+https://us:pass@host/a/b", "/a/b/"),
            ("redis://host", "/"),
            ("redis://us:pass@host:6380/2/prefix?ttl_days=30", "/prefix/"),
            ("rediss://host:6380/prefix", "/prefix/"),
        ] {
            let place = open(url, &with(variables)).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(place.operator.info().root().trim_matches('/'), root.trim_matches('/'), "{url}");
            assert!(Objects::is_address(url));
        }
        assert!(!Objects::is_address("grpc://host:1") && !Objects::is_address("s3"));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        assert!(refused("ftp://host/", &[]).contains("there are s3, gs"));
        assert!(refused("s3:///prefix", &[]).contains("s3://BUCKET/prefix"));
        assert!(refused("s3://b?regoin=x", &[]).contains("no option `regoin`; there are: endpoint, region"));
        assert!(refused("s3://b?region=x&region=y", &[]).contains("twice"));
        assert!(refused("s3://b?anonymous=1", &[]).contains("`true` or `false`"));
        assert!(refused("s3://b/a%2Fc", &[]).contains("prefix is made of"));
        assert!(refused("azblob://c", &[]).contains("?account=NAME"));
        assert!(refused("redis://h?ttl_days=x", &[]).contains("number of days"));
        assert!(refused("gha:", &[]).contains("ACTIONS_RUNTIME_TOKEN"));
        let half = refused("s3://b", &[("AWS_ACCESS_KEY_ID", "us")]);
        assert!(half.contains("AWS_SECRET_ACCESS_KEY"));
    }

    #[test]
    fn what_is_shown_holds_no_credential() {
        assert_eq!(shown("redis://us:hidden@host:1/2?x=hidden"), "redis://host:1/2");
        assert_eq!(shown("s3://bucket/prefix#hidden"), "s3://bucket/prefix");
        assert_eq!(shown("webdav+http://a:b@c@host"), "webdav+http://host");
        assert_eq!(shown("rediss://:ab/cd=@host:1/2/p"), "rediss://host:1/2/p");
        assert_eq!(shown("gha:prefix?hidden"), "gha:prefix");
        for (name, value) in
            [("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=hidden;x"), ("AZURE_STORAGE_KEY", "hidden!")]
        {
            let reason = refused("azblob://c?account=ours", &[(name, value)]);
            assert!(!reason.contains("hidden"), "{reason}");
        }
    }

    #[test]
    fn escapes_in_a_password_are_undone() {
        assert_eq!(decode("a%40b%2Fc+d&e"), "a@b/c+d&e");
    }
}
