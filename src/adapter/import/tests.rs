//! What files hold, and what their senders are told.
