using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Training;

namespace Headroom.Cli;

/// <summary>headroom cache: the quantized copies of bases.</summary>
internal static class CacheCommand
{
    public static Command Create()
    {
        var clear = new Option<bool>("--clear") { Description = "Delete them." };
        var json = new Option<bool>("--json") { Description = "Machine-readable output." };
        var command = new Command("cache", "List the quantized copies of bases (HEADROOM_CACHE says where). Example: headroom cache --clear") { clear, json };
        command.SetAction(p =>
        {
            var cache = QuantizedCache.Default;
            var copies = cache.List();
            if (p.GetValue(clear)) cache.Clear();
            if (p.GetValue(json)) Console.WriteLine(JsonSerializer.Serialize(new { folder = cache.Folder, cleared = p.GetValue(clear), copies = copies.Select(c => new { name = c.Name, bytes = c.Bytes, written = c.Written }) }));
            else
            {
                foreach (var c in copies) Console.WriteLine($"{Units.Bytes(c.Bytes),12}  {c.Written:yyyy-MM-dd}  {c.Name}");
                Console.WriteLine($"{cache.Folder}: {copies.Count} copies, {Units.Bytes(copies.Sum(c => c.Bytes))}{(p.GetValue(clear) ? ", deleted" : "")}");
            }
            return 0;
        });
        return command;
    }
}
