//! Debian control data: stanzas of `Field: value` lines. Source: Debian Policy, chapter 5.

use super::CatalogueError;

/// A package as an index describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) depends: String,
    /// Path below the mirror's base.
    pub(super) filename: String,
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// The value of `field` in `stanza`, first line only.
fn field<'a>(stanza: &'a str, field: &str) -> Option<&'a str> {
    stanza.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
}

/// The first package called `name` in `index`, of version `version` if that is given. `place` names the index in errors.
pub(super) fn find(index: &str, name: &str, version: Option<&str>, place: &str) -> Result<Package, CatalogueError> {
    let fail = |reason: String| CatalogueError::Index { place: place.into(), reason };
    let stanza = index
        .split("\n\n")
        .find(|s| field(s, "Package") == Some(name) && version.is_none_or(|v| field(s, "Version") == Some(v)))
        .ok_or_else(|| fail(format!("no package {name} {}", version.unwrap_or_default()).trim_end().into()))?;
    let need = |f: &str| field(stanza, f).map(String::from).ok_or_else(|| fail(format!("package {name} has no field {f}")));
    let (filename, sha256) = (need("Filename")?, need("SHA256")?.to_lowercase());
    if filename.starts_with('/') || filename.split(['/', '\\']).any(|part| part == "..") || filename.contains(char::is_control) {
        return Err(fail(format!("package {name} has a file name that leads out of the mirror")));
    }
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(fail(format!("package {name} has no usable SHA256")));
    }
    let size = need("Size")?.parse().map_err(|_| fail(format!("package {name} has no usable size")))?;
    let depends = field(stanza, "Depends").unwrap_or_default().into();
    Ok(Package { name: name.into(), version: need("Version")?, depends, filename, size, sha256 })
}

/// The first package in `depends` whose name starts with `prefix`, and its version when it is fixed.
pub(super) fn dependency(depends: &str, prefix: &str) -> Option<(String, Option<String>)> {
    depends.split([',', '|']).map(str::trim).find(|d| d.starts_with(prefix)).map(|d| {
        let name = d.split([' ', '(', ':']).next().unwrap_or_default().to_string();
        let version = d.split_once("(=").and_then(|(_, rest)| rest.split_once(')')).map(|(v, _)| v.trim().to_string());
        (name, version)
    })
}

/// Size and SHA-256 of `path` in a Release file.
pub(super) fn release_entry(release: &str, path: &str) -> Option<(u64, String)> {
    let list = release.lines().skip_while(|l| l.trim_end() != "SHA256:").skip(1).take_while(|l| l.starts_with(' '));
    list.map(|l| l.split_whitespace().collect::<Vec<_>>()).find_map(|l| match l[..] {
        [hash, size, name] if name == path => Some((size.parse().ok()?, hash.to_lowercase())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "Package: a\nVersion: 1\nFilename: pool/a.deb\nSize: 5\nDescription: x\n Package: b\nSHA256: \
        00000000000000000000000000000000000000000000000000000000000000AA\n\nPackage: b\nVersion: 2\nFilename: ../b\nSize: 1\nSHA256: 00\n\n\
        Package: a\nVersion: 3\nFilename: pool/a3.deb\nSize: x\nSHA256: \
        00000000000000000000000000000000000000000000000000000000000000aa\n";

    #[test]
    fn stanzas_are_found_by_name_and_version() {
        let a = find(INDEX, "a", None, "i").unwrap();
        assert_eq!((a.version.as_str(), a.filename.as_str(), a.size), ("1", "pool/a.deb", 5));
        assert!(a.sha256.ends_with("aa"), "lower case");
        let rows = [
            ("a", Some("3"), "i: package a has no usable size"),
            ("a", Some("4"), "i: no package a 4"),
            ("b", None, "i: package b has a file name that leads out of the mirror"),
            ("c", None, "i: no package c"),
        ];
        for (name, version, want) in rows {
            assert_eq!(find(INDEX, name, version, "i").unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn dependencies_give_name_and_version() {
        let rows = [
            ("linux-image-6.1.0-56-amd64 (= 6.1.192-2)", Some(("linux-image-6.1.0-56-amd64", Some("6.1.192-2")))),
            ("libc6, linux-image-9 | x", Some(("linux-image-9", None))),
            ("libc6 (>= 2)", None),
        ];
        for (depends, want) in rows {
            let got = dependency(depends, "linux-image-");
            assert_eq!(got.as_ref().map(|(n, v)| (n.as_str(), v.as_deref())), want);
        }
    }
}
