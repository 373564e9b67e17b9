using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Data;
using Headroom.Training.Recipes;

namespace Headroom.Training.Data.Forms;

/// <summary>
/// Columns of a record as the examples they are; whatever is of another kind is refused with the record's place.
/// </summary>
/// <param name="record">The record.</param>
/// <param name="data">Names the columns.</param>
internal sealed class ColumnReader(DataRecord record, DataOptions data)
{
    /// <summary>The error for this record.</summary>
    public HeadroomException Bad(string what, string todo) => new($"{record.Where}: {what}", todo);

    /// <summary>A column by the name that the form has for it; null where it is not there or null.</summary>
    public JsonNode? Find(string column) => record.Fields[data.Column(column)];

    /// <summary>A column that must be there.</summary>
    public JsonNode Need(string column) => Find(column) ?? throw Missing(column);

    /// <summary>A text that must be there and not blank.</summary>
    public string Text(string column) => Text(data.Column(column), Need(column));

    /// <summary>A text; empty where the column is not there or null.</summary>
    public string OptionalText(string column) =>
        Find(column) is { } value ? Text(data.Column(column), value, blank: true) : "";

    /// <summary>A node that must be a text.</summary>
    public string Text(string name, JsonNode? value, bool blank = false)
    {
        if (value is not JsonValue || value.GetValueKind() != JsonValueKind.String)
            throw Bad($"'{HeadroomException.Value(name)}' is {Kind(value)}, not a text", "Give it as a string");
        string text = value.GetValue<string>();
        if (!blank && string.IsNullOrWhiteSpace(text))
            throw Bad($"'{HeadroomException.Value(name)}' is empty", "Fill it in or drop the row");
        return text;
    }

    /// <summary>Whether a column holds a list, or JSON text of one.</summary>
    public bool HoldsList(string column) => Unpacked(Find(column)) is JsonArray;

    /// <summary>A list that must be there and hold something.</summary>
    public JsonArray List(string column) => List(data.Column(column), Need(column));

    /// <summary>A node that must be a list with items, or JSON text of one.</summary>
    public JsonArray List(string name, JsonNode? value)
    {
        var list = Unpacked(value) as JsonArray
            ?? throw Bad($"'{HeadroomException.Value(name)}' is {Kind(value)}, not a list", "Give it as a list");
        return list.Count > 0 ? list : throw Bad(
            $"'{HeadroomException.Value(name)}' is an empty list", "Fill it in or drop the row");
    }

    /// <summary>
    /// A node as it is meant: tables of cells (CSV, and Parquet of some writers) hold lists and objects as JSON text.
    /// </summary>
    public static JsonNode? Unpacked(JsonNode? value)
    {
        if (value?.GetValueKind() != JsonValueKind.String) return value;
        string text = value.GetValue<string>();
        if (text.AsSpan().TrimStart() is not ['[' or '{', ..]) return value;
        try
        {
            return JsonNode.Parse(
                text, documentOptions: new JsonDocumentOptions { AllowDuplicateProperties = false });
        }
        catch (JsonException)
        {
            return value;
        }
    }

    /// <summary>What a node is, in words.</summary>
    public static string Kind(JsonNode? value) => JsonKinds.Named(value?.GetValueKind() ?? JsonValueKind.Null);

    private HeadroomException Missing(string column)
    {
        string name = data.Column(column);
        bool isNull = record.Fields.ContainsKey(name);
        return Bad(
            isNull ? $"'{HeadroomException.Value(name)}' is null" : $"no column '{HeadroomException.Value(name)}'",
            isNull ? "Fill it in or drop the row"
                : $"Name the column in data.columns ({column}: name), or set task.type; columns here: "
                    + HeadroomException.List(record.Fields.Select(f => f.Key)));
    }
}
