//! Settings of an import source.

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

/// Settings of an import source. Files with the documented columns need only a secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportSettings {
    /// How senders authenticate, by headers alone: `bearer` (default) or `basic`.
    #[serde(default = "bearer")]
    pub authentication: AuthenticationMethod,
    /// The tenant. Default: the source has only one.
    pub tenant: Option<Selector>,
    /// What to do if an invoice number arrives again with another transaction: `review`
    /// (default) dead-letters the later one, `update` applies it as a newer state,
    /// `duplicate` keeps the first one.
    #[serde(default = "review")]
    pub on_conflict: InvoiceConflict,
    /// What to do if an invoice arrives again with other content.
    #[serde(default)]
    pub on_change: OnChange,
    /// Where the fields of an invoice are.
    #[serde(default)]
    pub invoice: InvoiceSettings,
    /// The CSV dialect.
    #[serde(default)]
    pub csv: CsvSettings,
}

const fn bearer() -> AuthenticationMethod {
    AuthenticationMethod::Bearer
}

const fn review() -> InvoiceConflict {
    InvoiceConflict::Review
}

/// What to do if an invoice arrives again with other content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// The later line updates the invoice.
    #[default]
    Update,
    /// Keep the first line; the later one is a duplicate.
    Duplicate,
}

/// The CSV dialect: UTF-8, with a header, quoted with `"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CsvSettings {
    /// The delimiter, one ASCII character; default `,`.
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
    /// The delimiter as a byte.
    ///
    /// # Errors
    /// [`InvalidSettings`] if it cannot separate fields.
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

/// Where a field is: a column or JSON member of this name, or a JSON pointer.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Column {
    /// As configured.
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

    /// The JSON pointer.
    pub(super) fn pointer(&self) -> &str {
        self.pointer.as_str()
    }

    /// The name of its column in a CSV file.
    fn column(&self) -> String {
        column(self.pointer.as_str())
    }
}

/// The column of a pointer. Nested pointers have none: they are returned unchanged, which
/// no column is called.
fn column(pointer: &str) -> String {
    match pointer.strip_prefix('/') {
        Some(name) if !name.contains('/') => name.replace("~1", "/").replace("~0", "~"),
        _ => pointer.to_owned(),
    }
}

/// Where the value of a field is found: a [`Column`] or `const:TEXT`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum ColumnSource {
    /// A column.
    Column(Column),
    /// A constant.
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

/// Where the fields of an invoice are. A CSV file must have every configured column; in a
/// row, due date, status and version may be empty.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvoiceSettings {
    /// The vendor; default `vendor`.
    pub vendor: ColumnSource,
    /// The vendor's invoice number; default `invoice_number`.
    pub invoice_number: Column,
    /// The sender's id of the transaction. Default: none.
    pub transaction_id: Option<Column>,
    /// Total; default `amount`. A negative amount is a credit note. The key may also be
    /// called `total`, as in other kinds of sources.
    #[serde(alias = "total")]
    pub amount: Column,
    /// Whether the amount is in minor units (cents); default false.
    pub minor_units: bool,
    /// The currency, ISO 4217; default `currency`.
    pub currency: ColumnSource,
    /// Due date. Default: `due_date`, which a file may omit.
    pub due_on: Option<Column>,
    /// The sender's status. Default: `open`.
    pub status: Option<ColumnSource>,
    /// Our status for each status of the sender; an unlisted status that is not one of ours
    /// becomes `other`.
    pub statuses: BTreeMap<String, String>,
    /// The version for the stale check: a timestamp. Default: the start of the import, with
    /// later lines after earlier ones.
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
    /// All configured columns.
    fn columns_named(&self) -> impl Iterator<Item = &Column> {
        let values = [Some(&self.vendor), Some(&self.currency), self.status.as_ref()];
        let values = values.into_iter().flatten().filter_map(ColumnSource::column);
        let moving = [&self.transaction_id, &self.due_on, &self.version].into_iter().flatten();
        [&self.invoice_number, &self.amount].into_iter().chain(moving).chain(values)
    }

    /// The columns that a CSV file must have.
    pub(super) fn required_columns(&self, tenant: Option<&Selector>) -> Vec<String> {
        let of_tenant = tenant.and_then(Selector::pointer).map(column);
        let mut columns: Vec<_> =
            self.columns_named().map(Column::column).chain(of_tenant).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The configured name of each field.
    pub(super) fn field_names(&self) -> FieldNames {
        let due_on = default_due_on();
        let columns = self.columns_named().chain([&due_on]);
        let pair = |column: &Column| (column.pointer().to_owned(), column.name.clone());
        FieldNames(columns.map(pair).collect())
    }
}

/// The default column of the due date.
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

/// The configured names of fields by their pointers.
pub(super) struct FieldNames(BTreeMap<String, String>);

impl FieldNames {
    /// A failure with the configured name of its field.
    pub(super) fn renamed(&self, failure: PermanentFailure) -> PermanentFailure {
        match self.0.get(&failure.field) {
            Some(name) => PermanentFailure { field: name.clone(), ..failure },
            None => failure,
        }
    }
}
