//! The settings of a source of files, as they are written.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    domain::{InvoiceConflict, PermanentFailure},
    sources::{
        authentication::AuthenticationMethod,
        invoice_payload::FieldMap,
        mapping::InvalidSettings,
        selector::{FieldPointer, FieldSource, Selector},
    },
};

/// The settings of a source of files. Files with the documented columns need
/// none but its secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportSettings {
    /// How senders prove who they are, by headers alone: `bearer` (default) or
    /// `basic`.
    #[serde(default = "bearer")]
    pub authentication: AuthenticationMethod,
    /// The company; default: there is only one.
    pub tenant: Option<Selector>,
    /// What to do with an invoice number that comes again with another
    /// transaction: `review` (default) puts it before a person, `update` takes
    /// it for a newer state, `duplicate` leaves the first as it is.
    #[serde(default = "review")]
    pub on_conflict: InvoiceConflict,
    /// What to do with an invoice that comes again and says something else.
    #[serde(default)]
    pub on_change: OnChange,
    /// Where an invoice's fields stand.
    #[serde(default)]
    pub invoice: InvoiceSettings,
    /// How CSV files are written.
    #[serde(default)]
    pub csv: CsvSettings,
}

const fn bearer() -> AuthenticationMethod {
    AuthenticationMethod::Bearer
}

const fn review() -> InvoiceConflict {
    InvoiceConflict::Review
}

/// What to do with an invoice that comes again and says something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// The later line tells the invoice's state.
    #[default]
    Update,
    /// The first line stands; the later one is a duplicate.
    Duplicate,
}

/// How CSV files are written: UTF-8, with a header, quoted with `"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CsvSettings {
    /// What stands between two fields, one ASCII character; default `,`.
    pub delimiter: String,
    /// Whether amounts have a decimal comma, as in `1.234,56`; default false.
    pub decimal_comma: bool,
}

impl Default for CsvSettings {
    fn default() -> Self {
        Self { delimiter: ",".to_owned(), decimal_comma: false }
    }
}

impl CsvSettings {
    /// The delimiter.
    ///
    /// # Errors
    /// [`InvalidSettings`] if fields could not be told apart by it.
    pub(super) fn delimiter(&self) -> Result<u8, InvalidSettings> {
        match *self.delimiter.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0) => Ok(byte),
            _ => Err(InvalidSettings::new(
                "csv.delimiter",
                format!("{:?} is not one ASCII character such as \",\"", self.delimiter),
            )),
        }
    }
}

/// Where a field stands: in a column or JSON member of this name, or at a JSON
/// pointer.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Column {
    /// As it is written.
    name: String,
    pointer: FieldPointer,
}

impl TryFrom<String> for Column {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let name = text.trim();
        if name.is_empty() || name.starts_with("header:") || name.starts_with("const:") {
            return Err(format!("{text:?} is neither a column's name nor a JSON pointer (/id)"));
        }
        let pointer = if name.starts_with('/') {
            name.to_owned()
        } else {
            format!("/{}", name.replace('~', "~0").replace('/', "~1"))
        };
        Ok(Self { name: name.to_owned(), pointer: pointer.try_into()? })
    }
}

impl Column {
    fn from_static(name: &'static str, pointer: &'static str) -> Self {
        Self { name: name.to_owned(), pointer: FieldPointer::from_static(pointer) }
    }

    /// The pointer.
    pub(super) fn pointer(&self) -> &str {
        self.pointer.as_str()
    }

    /// The name of its column in a CSV file.
    fn column(&self) -> String {
        column(self.pointer.as_str())
    }
}

/// The column that a pointer leads to. What is nested has none: its pointer
/// stands for a name that no file has.
fn column(pointer: &str) -> String {
    match pointer.strip_prefix('/') {
        Some(name) if !name.contains('/') => name.replace("~1", "/").replace("~0", "~"),
        _ => pointer.to_owned(),
    }
}

/// Where a field's value is found: a [`Column`] or `const:TEXT`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum ColumnSource {
    /// In a column.
    Column(Column),
    /// Always this.
    Constant(String),
}

impl TryFrom<String> for ColumnSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.strip_prefix("const:") {
            Some(constant) => Ok(Self::Constant(constant.to_owned())),
            None => Column::try_from(text).map(Self::Column),
        }
    }
}

impl ColumnSource {
    fn column(&self) -> Option<&Column> {
        match self {
            Self::Column(column) => Some(column),
            Self::Constant(_) => None,
        }
    }
}

impl From<ColumnSource> for FieldSource {
    fn from(source: ColumnSource) -> Self {
        match source {
            ColumnSource::Column(column) => Self::Pointer(column.pointer().to_owned()),
            ColumnSource::Constant(constant) => Self::Constant(constant),
        }
    }
}

/// Where an invoice's fields stand. Every column that is named must be in a
/// CSV file; in a row, the day by which it is to be paid, the status and the
/// version may be empty.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvoiceSettings {
    /// The vendor; default `vendor`.
    pub vendor: ColumnSource,
    /// The vendor's number for the invoice; default `invoice_number`.
    pub invoice_number: Column,
    /// The sender's id of the transaction behind it. Default: there is none.
    pub transaction_id: Option<Column>,
    /// What it is over; default `amount`. Less than nothing is a credit note.
    /// `total`, as other kinds call it, is taken too.
    #[serde(alias = "total")]
    pub amount: Column,
    /// Whether the amount is a whole number of the currency's smallest unit
    /// (cents); default false.
    pub minor_units: bool,
    /// The currency, ISO 4217; default `currency`.
    pub currency: ColumnSource,
    /// The day by which it is to be paid. Default: `due_date`, which a file
    /// may leave out.
    pub due_on: Option<Column>,
    /// The sender's word for its state. Default: `open`.
    pub status: Option<ColumnSource>,
    /// Our word for each of the sender's; a word that is not listed and not
    /// one of ours is `other`.
    pub statuses: BTreeMap<String, String>,
    /// The version for the stale guard: a time. Default: when the import
    /// began, and the later line before the earlier.
    pub version: Option<Column>,
}

impl Default for InvoiceSettings {
    fn default() -> Self {
        Self {
            vendor: ColumnSource::Column(Column::from_static("vendor", "/vendor")),
            invoice_number: Column::from_static("invoice_number", "/invoice_number"),
            transaction_id: None,
            amount: Column::from_static("amount", "/amount"),
            minor_units: false,
            currency: ColumnSource::Column(Column::from_static("currency", "/currency")),
            due_on: None,
            status: None,
            statuses: BTreeMap::new(),
            version: None,
        }
    }
}

impl InvoiceSettings {
    /// Every field that is named.
    fn columns_named(&self) -> impl Iterator<Item = &Column> {
        let values = [Some(&self.vendor), Some(&self.currency), self.status.as_ref()];
        let values = values.into_iter().flatten().filter_map(ColumnSource::column);
        let moving = [&self.transaction_id, &self.due_on, &self.version].into_iter().flatten();
        [&self.invoice_number, &self.amount].into_iter().chain(moving).chain(values)
    }

    /// The columns without which a CSV file is not what these settings say.
    pub(super) fn required_columns(&self, tenant: Option<&Selector>) -> Vec<String> {
        let of_tenant = tenant.and_then(Selector::pointer).map(column);
        let mut columns: Vec<_> =
            self.columns_named().map(Column::column).chain(of_tenant).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// How each field is called.
    pub(super) fn field_names(&self) -> FieldNames {
        let due_on = default_due_on();
        let columns = self.columns_named().chain([&due_on]);
        let pair = |column: &Column| (column.pointer().to_owned(), column.name.clone());
        FieldNames(columns.map(pair).collect())
    }
}

/// Where the day stands unless something else is said.
fn default_due_on() -> Column {
    Column::from_static("due_date", "/due_date")
}

impl From<InvoiceSettings> for FieldMap {
    fn from(settings: InvoiceSettings) -> Self {
        Self {
            requires_vendor_and_currency: true,
            invoice_number: settings.invoice_number.pointer,
            transaction_id: settings.transaction_id.map(|column| column.pointer),
            amount: settings.amount.pointer,
            minor_units: settings.minor_units,
            vendor: settings.vendor.into(),
            currency: settings.currency.into(),
            due_on: settings.due_on.unwrap_or_else(default_due_on).pointer,
            status: settings.status.map(FieldSource::from),
            statuses: settings.statuses,
            version: settings.version.map(|column| column.pointer),
        }
    }
}

/// How the settings call the fields at pointers.
pub(super) struct FieldNames(BTreeMap<String, String>);

impl FieldNames {
    /// A failure under the name that the settings use.
    pub(super) fn renamed(&self, failure: PermanentFailure) -> PermanentFailure {
        match self.0.get(&failure.field) {
            Some(name) => PermanentFailure { field: name.clone(), ..failure },
            None => failure,
        }
    }
}
