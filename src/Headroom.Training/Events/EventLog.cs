using System.Text.Json;
using System.Text.Json.Nodes;

namespace Headroom.Training;

/// <summary>events.jsonl of a run: one JSON object a line, in order, each with "event" and "time"; everything shown anywhere is derived from it.</summary>
public sealed class EventLog : IDisposable
{
    // A key that stands twice is a fault of the line; without this it would be one of whoever asks for it first.
    private static readonly JsonDocumentOptions OnceEach = new() { AllowDuplicateProperties = false };
    private readonly StreamWriter _writer;

    /// <summary>Opens for appending; with <paramref name="keepSteps"/>, events of later steps (written before a crash, after the checkpoint) are dropped first.</summary>
    public EventLog(string path, int? keepSteps = null)
    {
        Path = path;
        if (keepSteps is { } last && File.Exists(path))
        {
            var kept = Read(path).Where(e => (int?)e["step"] is not { } s || s <= last).Where(e => (string?)e["event"] != "run_end").Select(e => e.ToJsonString()).ToList();
            Formats.AtomicFile.WriteText(path, string.Concat(kept.Select(l => l + "\n")));
        }
        bool broken = EndsInside(path);
        _writer = new StreamWriter(new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.Read)) { NewLine = "\n" };
        if (broken) _writer.WriteLine();
    }

    // The end of a line that a kill cut off; what is appended must not become part of it.
    private static bool EndsInside(string path)
    {
        if (!File.Exists(path)) return false;
        using var file = File.OpenRead(path);
        if (file.Length == 0) return false;
        file.Seek(-1, SeekOrigin.End);
        return file.ReadByte() != '\n';
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>Appends one event and flushes it.</summary>
    public void Write(string kind, JsonObject fields)
    {
        var line = new JsonObject { ["event"] = kind, ["time"] = DateTime.UtcNow.ToString("O") };
        foreach (var (key, value) in fields.ToList())
        {
            fields.Remove(key);
            line[key] = value;
        }
        _writer.WriteLine(line.ToJsonString());
        _writer.Flush();
    }

    /// <summary>Reads events; a half-written last line (a kill), and a line that is no event, is ignored.</summary>
    public static IEnumerable<JsonObject> Read(string path)
    {
        using var reader = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite)); // a run may be writing
        while (reader.ReadLine() is { } line)
        {
            JsonObject? e = null;
            try
            {
                e = JsonNode.Parse(line, null, OnceEach) as JsonObject;
            }
            catch (JsonException)
            {
            }
            if (e != null && IsEvent(e)) yield return e;
        }
    }

    private static bool IsEvent(JsonObject e) =>
        e["event"] is JsonValue kind && kind.TryGetValue(out string? _) && (e["step"] is not { } step || step is JsonValue number && number.TryGetValue(out int _));

    /// <inheritdoc/>
    public void Dispose() => _writer.Dispose();
}
