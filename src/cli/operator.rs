//! What commands share that change something: who does it.

/// Who acts: as told, else the user of this session.
pub(super) fn actor(told: Option<&String>) -> String {
    let user = || ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    told.cloned()
        .or_else(user)
        .filter(|name| !name.trim().is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
