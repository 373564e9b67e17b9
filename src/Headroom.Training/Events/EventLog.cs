using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Training.Events;

/// <summary>
/// events.jsonl of a run: one JSON object a line, in order, each with "event" and "time"; everything shown anywhere is
/// derived from it.
/// </summary>
/// <remarks>
/// A full disk loses no event and cuts none in half: what cannot be written is kept and written before the next one,
/// and <see cref="Sync"/> fails while something is left. A run syncs before it saves a checkpoint, so a checkpoint
/// never knows of steps that the log does not hold.
/// </remarks>
internal sealed class EventLog : IDisposable
{
    private const int MostUnwritten = 64 << 20; // bytes kept for a disk that stays full: some 200,000 steps
    private readonly Stream _file;
    private readonly MemoryStream _unwritten = new();
    private long _whole; // length of the file up to its last whole line
    private bool _warned;
    // A key that stands twice is a fault of the line; without this it would be one of whoever asks for it first.
    private static readonly JsonDocumentOptions OnceEach = new() { AllowDuplicateProperties = false };

    /// <summary>Opens for appending.</summary>
    public EventLog(string path)
    {
        Path = path;
        bool broken = EndsInside(path);
        _file = FileLayer.Current.Append(path);
        _whole = _file.Length;
        if (broken) _unwritten.WriteByte((byte)'\n');
    }

    /// <summary>
    /// Takes out of a log what a run makes again: events of steps after <paramref name="keepSteps"/> (all events, for
    /// null), run_end and the test before it. They are appended to
    /// <paramref name="aside"/> before the log is replaced, so that no event is ever lost; a kill in between leaves
    /// them there twice.
    /// </summary>
    public static void Cut(string path, string aside, int? keepSteps)
    {
        if (!File.Exists(path)) return;
        bool Stays(Line l) => keepSteps is { } last && l.Event is { } e && !IsOfEnd(e) && !(l.Step > last);
        var parts = Lines(path).ToLookup(Stays, l => l.Text + "\n");
        if (!parts[false].Any()) return;
        using (var cut = FileLayer.Current.Append(aside))
        {
            cut.Write(Encoding.UTF8.GetBytes(string.Concat(parts[false])));
            FileLayer.Current.Flush(cut);
        }
        Formats.AtomicFile.WriteText(path, string.Concat(parts[true]));
    }

    // The tuned model is tested anew at the end: a kill just now must not leave its old figures to a report.
    private static bool IsOfEnd(LogEvent e) => e is RunEndEvent or TestEvent { Stage: TestEvent.Tuned };

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

    /// <summary>Is told, once, when the disk takes no more events.</summary>
    public Action<string>? Warn { get; set; }

    /// <summary>Appends one event, as of now. What the disk does not take is kept for the next write.</summary>
    /// <exception cref="HeadroomException">More is kept than memory should hold.</exception>
    public void Write(LogEvent e)
    {
        _unwritten.Write((e with { Time = DateTime.UtcNow.ToString("O") }).ToLine());
        _unwritten.WriteByte((byte)'\n');
        if (Append() is not { } fault)
        {
            _warned = false;
            return;
        }
        if (_unwritten.Length > MostUnwritten) throw Unwritable(fault);
        if (!_warned)
            Warn?.Invoke(
                $"WARNING: {Path} cannot be written ({fault.Message.TrimEnd('.')}); its events are kept in memory "
                    + $"until it can. Free some space."
            );
        _warned = true;
    }

    /// <summary>Writes what is left and flushes the file to the disk.</summary>
    /// <exception cref="HeadroomException">The disk does not take it; exit code 1.</exception>
    public void Sync()
    {
        try
        {
            if (Append() is { } fault) throw fault;
            FileLayer.Current.Flush(_file);
        }
        catch (Exception e) when (DiskFault.Find(e) is { } fault)
        {
            throw Unwritable(fault);
        }
    }

    // Null = everything is in the file. A line that went in half is taken out again: that needs no space.
    private Exception? Append()
    {
        if (_unwritten.Length == 0) return null;
        try
        {
            _file.Position = _whole;
            _file.Write(_unwritten.GetBuffer().AsSpan(0, (int)_unwritten.Length));
            _whole = _file.Position;
            _unwritten.SetLength(0);
            return null;
        }
        catch (Exception e) when (DiskFault.Find(e) is { } fault)
        {
            Shorten();
            return fault;
        }
    }

    private void Shorten()
    {
        try
        {
            _file.SetLength(_whole);
        }
        catch (Exception e) when (DiskFault.Find(e) != null)
        {
            // the half line is overwritten by the next write, or left out by readers
        }
    }

    private HeadroomException Unwritable(Exception fault) =>
        new($"Cannot write {Path}: {fault.Message}", "Free some space or mend the disk.", 1, fault);

    /// <summary>Reads events; a half-written last line (a kill), and a line that is no event, is ignored.</summary>
    public static IEnumerable<LogEvent> Read(string path) => Lines(path).Select(l => l.Event).OfType<LogEvent>();

    // The step is that of an event of any kind, of one that this version does not know too.
    private readonly record struct Line(string Text, LogEvent? Event, int? Step);

    private static IEnumerable<Line> Lines(string path)
    {
        RegularFile.Check(path);
        // a run may be writing
        using var reader = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        while (reader.ReadLine() is { } line) yield return Parse(line);
    }

    private static Line Parse(string line)
    {
        try
        {
            using var json = JsonDocument.Parse(line, OnceEach);
            var root = json.RootElement;
            if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("event", out var kind)
                || kind.ValueKind != JsonValueKind.String)
                return new Line(line, null, null);
            int? step = null;
            if (root.TryGetProperty("step", out var at) && at.ValueKind != JsonValueKind.Null)
            {
                if (at.ValueKind != JsonValueKind.Number || !at.TryGetInt32(out int whole))
                    return new Line(line, null, null);
                step = whole;
            }
            var e = root.Deserialize(EventJson.Default.LogEvent);
            if (e is EvaluationEvent evaluation) e = evaluation with { Fields = JsonObject.Create(root.Clone())! };
            return new Line(line, e, step);
        }
        catch (JsonException)
        {
            return new Line(line, null, null);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Append();
        _file.Dispose();
    }
}
