//! [`FileConfig`]: what stands in the configuration file, key by key, with the lines.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Complaint;

/// A value as text, with where it stands.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) text: String,
    pub(super) place: String,
}

/// The keys of the file that are set.
#[derive(Debug, Default)]
pub(super) struct FileConfig {
    pub(super) listen: Option<Entry>,
    pub(super) http_listen: Option<Entry>,
    pub(super) http_cache: Option<Entry>,
    pub(super) data_dir: Option<Entry>,
    pub(super) max_size: Option<Entry>,
    pub(super) durability: Option<Entry>,
    pub(super) verify_rate: Option<Entry>,
    pub(super) lease_size: Option<Entry>,
    pub(super) lease_quiet: Option<Entry>,
    pub(super) result_age_max: Option<Entry>,
    pub(super) results_since: Option<Entry>,
    pub(super) tier: Option<Entry>,
    pub(super) with_worker: Option<Entry>,
    pub(super) ready_file: Option<Entry>,
    pub(super) log_format: Option<Entry>,
    pub(super) wait_for_workers: Option<Entry>,
    pub(super) hedge_after: Option<Entry>,
    pub(super) recheck_percent: Option<Entry>,
    pub(super) operators: Option<Entry>,
    /// Name and digest function of each `[[instance]]`.
    pub(super) instances: Vec<(Entry, Option<Entry>)>,
    /// Name and kind of each `[[property]]`.
    pub(super) properties: Vec<[Option<Entry>; 2]>,
    /// Instance, principal and weight of each `[[share]]`.
    pub(super) shares: Vec<[Option<Entry>; 3]>,
}

const KEYS: [&str; 22] = [
    "listen",
    "http-listen",
    "http-cache",
    "data-dir",
    "max-size",
    "durability",
    "verify-rate",
    "lease-size",
    "lease-quiet",
    "result-age-max",
    "results-since",
    "tier",
    "with-worker",
    "ready-file",
    "log-format",
    "wait-for-workers",
    "hedge-after",
    "recheck-percent",
    "operators",
    "instance",
    "property",
    "share",
];

const INSTANCE_KEYS: [&str; 2] = ["name", "digest-function"];

impl FileConfig {
    pub(super) fn read(path: &Path, complaints: &mut Vec<Complaint>) -> Self {
        let file = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                complaints.push(Complaint { place: file, key: None, problem: error.to_string() });
                return Self::default();
            }
        };
        Reader { file, text: &text, complaints }.read()
    }
}

struct Reader<'a> {
    file: String,
    text: &'a str,
    complaints: &'a mut Vec<Complaint>,
}

impl Reader<'_> {
    fn read(mut self) -> FileConfig {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.complain(at, None, error.message().to_owned());
        }
        let table = table.into_inner();
        self.refuse_unknown(&table, &KEYS, "");
        FileConfig {
            listen: self.text_of(&table, "listen"),
            http_listen: self.text_of(&table, "http-listen"),
            http_cache: self.text_of(&table, "http-cache"),
            data_dir: self.text_of(&table, "data-dir"),
            max_size: self.text_of(&table, "max-size"),
            durability: self.text_of(&table, "durability"),
            verify_rate: self.text_of(&table, "verify-rate"),
            lease_size: self.text_of(&table, "lease-size"),
            lease_quiet: self.text_of(&table, "lease-quiet"),
            result_age_max: self.text_of(&table, "result-age-max"),
            results_since: self.text_of(&table, "results-since"),
            tier: self.text_of(&table, "tier"),
            with_worker: self.scalar_of(&table, "with-worker"),
            ready_file: self.text_of(&table, "ready-file"),
            log_format: self.text_of(&table, "log-format"),
            wait_for_workers: self.text_or_number(&table, "wait-for-workers", ""),
            hedge_after: self.text_or_number(&table, "hedge-after", ""),
            recheck_percent: self.text_or_number(&table, "recheck-percent", ""),
            operators: self.text_of(&table, "operators"),
            instances: self.instances(&table),
            properties: self.rows(&table, "property", ["name", "kind"]),
            shares: self.rows(&table, "share", ["instance", "principal", "weight"]),
        }
    }

    fn complain(&mut self, at: usize, key: Option<&str>, problem: String) {
        let place = self.place(at);
        self.complaints.push(Complaint { place, key: key.map(str::to_owned), problem });
    }

    fn place(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        format!("{}:{}", self.file, before.matches('\n').count() + 1)
    }

    fn refuse_unknown(&mut self, table: &DeTable<'_>, known: &[&str], parent: &str) {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let problem = format!("is no key; there are `{}`", known.join("`, `"));
            self.complain(key.span().start, Some(&format!("{parent}{}", key.get_ref())), problem);
        }
    }

    fn text_of(&mut self, table: &DeTable<'_>, key: &str) -> Option<Entry> {
        self.text_below(table, key, "")
    }

    fn text_below(&mut self, table: &DeTable<'_>, key: &str, parent: &str) -> Option<Entry> {
        let value = table.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(self.entry(value, text)),
            other => {
                let problem = format!("is {} where text belongs", kind(other));
                self.complain(value.span().start, Some(&format!("{parent}{key}")), problem);
                None
            }
        }
    }

    /// A number or a truth value, as text.
    fn scalar_of(&mut self, table: &DeTable<'_>, key: &str) -> Option<Entry> {
        let value = table.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(truth) => Some(self.entry(value, &truth.to_string())),
            DeValue::Integer(number) => Some(self.entry(value, &number.to_string())),
            other => {
                let problem = format!("is {} where a number, `true` or `false` belongs", kind(other));
                self.complain(value.span().start, Some(key), problem);
                None
            }
        }
    }

    fn entry(&self, value: &Spanned<DeValue<'_>>, text: &str) -> Entry {
        Entry { text: text.to_owned(), place: self.place(value.span().start) }
    }

    /// The values of these keys in each of the tables of an array.
    fn rows<const N: usize>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        keys: [&str; N],
    ) -> Vec<[Option<Entry>; N]> {
        let Some(value) = table.get(key) else { return Vec::new() };
        let Some(rows) = value.get_ref().as_array() else {
            let problem = format!("is {} where [[{key}]] belongs", kind(value.get_ref()));
            self.complain(value.span().start, Some(key), problem);
            return Vec::new();
        };
        let parent = format!("{key}.");
        let mut found = Vec::new();
        for row in rows {
            let Some(table) = row.get_ref().as_table() else {
                let problem = format!("is {} where a table belongs", kind(row.get_ref()));
                self.complain(row.span().start, Some(key), problem);
                continue;
            };
            self.refuse_unknown(table, &keys, &parent);
            found.push(keys.map(|key| self.text_or_number(table, key, &parent)));
        }
        found
    }

    fn text_or_number(&mut self, table: &DeTable<'_>, key: &str, parent: &str) -> Option<Entry> {
        let value = table.get(key)?;
        match value.get_ref() {
            DeValue::Integer(number) => Some(self.entry(value, &number.to_string())),
            DeValue::Float(number) => Some(self.entry(value, &number.to_string())),
            _ => self.text_below(table, key, parent),
        }
    }

    fn instances(&mut self, table: &DeTable<'_>) -> Vec<(Entry, Option<Entry>)> {
        let Some(value) = table.get("instance") else {
            return Vec::new();
        };
        let Some(tables) = value.get_ref().as_array() else {
            let problem = format!("is {} where [[instance]] belongs", kind(value.get_ref()));
            self.complain(value.span().start, Some("instance"), problem);
            return Vec::new();
        };
        tables.iter().filter_map(|table| self.instance(table)).collect()
    }

    fn instance(&mut self, value: &Spanned<DeValue<'_>>) -> Option<(Entry, Option<Entry>)> {
        let at = value.span().start;
        let Some(table) = value.get_ref().as_table() else {
            self.complain(
                at,
                Some("instance"),
                format!("is {} where a table belongs", kind(value.get_ref())),
            );
            return None;
        };
        self.refuse_unknown(table, &INSTANCE_KEYS, "instance.");
        let function = self.text_below(table, "digest-function", "instance.");
        if !table.contains_key("name") {
            self.complain(at, Some("instance.name"), "is not set".to_owned());
        }
        Some((self.text_below(table, "name", "instance.")?, function))
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
