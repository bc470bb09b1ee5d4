//! The words that people read, by key and in the reader's language: pages, mails and the terminal ask here, and nowhere else is a
//! text kept twice. The texts stand in `locales/`: `console.yml`, `mails.yml`, and `faults.yml` for what is wrong and what to do.
//!
//! A key without a text is a mistake that a test finds; at run time the key itself is shown. Moments and durations: `when`.

use std::borrow::Cow;

use crate::customers::Language;

pub(crate) mod when;

/// A reader's language, to be asked for texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Language);

impl Words {
    /// The language's tag for `lang=` and the locale files.
    pub(crate) fn tag(self) -> &'static str {
        match self.0 {
            Language::Zh => "zh-CN",
            Language::En => "en",
        }
    }

    fn find(self, key: &str) -> Option<Cow<'static, str>> {
        crate::_rust_i18n_try_translate(self.tag(), key).map(|text| Cow::Owned(text.into_owned()))
    }

    /// The text of `key`.
    pub(crate) fn t(self, key: &str) -> Cow<'static, str> {
        self.find(key).unwrap_or_else(|| Cow::Owned(key.to_owned()))
    }

    /// The text of `group.name`: for names of enums. An unknown name (a newer agent's code, a person's own words) is shown as it is.
    pub(crate) fn of(self, group: &str, name: &str) -> Cow<'static, str> {
        self.find(&format!("{group}.{name}")).unwrap_or_else(|| Cow::Owned(name.to_owned()))
    }

    /// The text of `key` with `%{n}` and the like replaced.
    pub(crate) fn with(self, key: &str, values: &[(&str, &dyn std::fmt::Display)]) -> String {
        let mut text = self.t(key).into_owned();
        for (name, value) in values {
            text = text.replace(&format!("%{{{name}}}"), &value.to_string());
        }
        text
    }

    /// `name: value`, as the language writes it.
    pub(crate) fn pair(self, name: &str, value: &str) -> String {
        self.with("pair", &[("name", &name), ("value", &value)])
    }

    /// A component (`disk:/var`, or `disk./var` in metric names) with its kind in words and its own name as it is: `Disk /var`.
    pub(crate) fn component(self, name: &str) -> String {
        let (kind, rest) = name.split_once([':', '.']).unwrap_or((name, ""));
        format!("{} {rest}", self.of("component", kind)).trim_end().to_owned()
    }

    /// What is wrong, by its code (docs/faults.md), and with what: `Business service does not answer: payments`. `place`, the
    /// appliance or the site, stands where the component has no name of its own.
    pub(crate) fn fault(self, component: &str, code: &str, place: &str) -> String {
        let what = self.of("fault", code);
        match component.split_once(':').map_or(place, |(_, name)| name) {
            "" => what.into_owned(),
            name => self.pair(&what, name),
        }
    }

    /// What to do about a fault; empty for a code that only a newer agent knows.
    pub(crate) fn action(self, code: &str) -> String {
        self.find(&format!("fault_action.{code}")).unwrap_or_default().into_owned()
    }

    /// Whether `key` has a text in this language.
    #[cfg(test)]
    pub(crate) fn knows(self, key: &str) -> bool {
        self.find(key).is_some()
    }
}

#[cfg(test)]
pub(crate) mod tests;
