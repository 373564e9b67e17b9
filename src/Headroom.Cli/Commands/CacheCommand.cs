using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Inference.Bases;

namespace Headroom.Cli.Commands;

/// <summary>headroom cache: the quantized copies of bases.</summary>
internal static class CacheCommand
{
    public static Command Create()
    {
        var clear = new Option<bool>("--clear")
        {
            Description =
                "Delete them, and the remembered hashes of bases; what is in use or not of the cache stays, and is "
                    + "named.",
        };
        var json = new Option<bool>("--json") { Description = "Machine-readable output." };
        var command = new Command(
            "cache", "List the quantized copies of bases (HEADROOM_CACHE says where). Example: headroom cache --clear")
        {
            clear, json,
        };
        command.SetAction(p =>
        {
            var cache = QuantizedCache.Default;
            var copies = cache.List();
            var cleared = p.GetValue(clear) ? cache.Clear() : null;
            if (p.GetValue(json))
                Console.WriteLine(JsonSerializer.Serialize(new
                {
                    folder = cache.Folder,
                    cleared = cleared != null,
                    copies = copies.Select(c => new
                    {
                        name = c.Name,
                        bytes = c.Bytes,
                        written = c.Written,
                    }),
                    deleted = cleared?.Deleted,
                    in_use = cleared?.InUse,
                    left = cleared?.Left,
                }));
            else Print(cache, copies, cleared);
            return 0;
        });
        return command;
    }

    private static void Print(
        QuantizedCache cache, IReadOnlyList<(string Name, long Bytes, DateTime Written)> copies, CacheCleared? cleared)
    {
        foreach (var c in copies) Console.WriteLine($"{Units.Bytes(c.Bytes),12}  {c.Written:yyyy-MM-dd}  {c.Name}");
        Console.WriteLine($"{cache.Folder}: {copies.Count} copies, {Units.Bytes(copies.Sum(c => c.Bytes))}");
        if (cleared == null) return;
        foreach (string name in cleared.Deleted) Console.WriteLine($"deleted {name}");
        foreach (string name in cleared.InUse) Console.WriteLine($"left {name}: a process uses it");
        foreach (string path in cleared.Left) Console.WriteLine($"left {path}: not of the cache");
        if (cleared.Deleted.Count == 0) Console.WriteLine("nothing to delete");
    }
}
