//! What a text would change of what runs. Whoever sends it need not be one who may read our environment and files, so
//! only what the running file names is filled in, and nothing of it is told.

use std::path::Path;

use super::{catch, load};
use crate::admin::DiffAnswer;
use crate::config::Loaded;
use crate::plan::diff::diff;

pub fn compare(running: &Loaded, name: &str, base: &Path, text: &str) -> Result<DiffAnswer, Vec<String>> {
    if let Some(other) = variables(text).find(|variable| !running.text.contains(variable.as_str())) {
        let words = format!(
            "{name}: {other} is not used by the running configuration, so its value is not looked up here; \
             `outrigger check` judges the whole file, `outrigger reload` takes it"
        );
        return Err(vec![words]);
    }
    let loaded = catch(|| load(text, name, base))?;
    let mut changes = diff(&running.settings, &loaded.settings);
    changes.iter_mut().for_each(|change| change.path = loaded.outside.hidden(&change.path));
    Ok(DiffAnswer {
        changes,
        notes: loaded.notes.iter().map(ToString::to_string).collect(),
        hash: loaded.hash,
        running: running.hash.clone(),
    })
}

/// Every `${…}` of a text, up to where its default or message begins.
fn variables(text: &str) -> impl Iterator<Item = String> {
    text.split("${").skip(1).map(|after| {
        let end = after.find(['}', '\n']).unwrap_or(after.len());
        let inside = &after[..end];
        let name = if inside.starts_with("file:") { inside } else { inside.split(':').next().unwrap_or(inside) };
        format!("${{{name}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_found() {
        let found: Vec<String> = variables("a: ${A:-b}${file:/x:y}\nb: '${C:?say}' $${D} ${").collect();
        assert_eq!(found, ["${A", "${file:/x:y", "${C", "${D", "${"]);
    }
}
