namespace Headroom.Fuzz;

/// <summary>What the command line says.</summary>
internal sealed class Options
{
    public ulong Seed { get; set; } = 1;
    /// <summary>Cases that have to agree before the run ends.</summary>
    public long Cases { get; set; } = 100_000;
    /// <summary>Only this group of cases: the replay of a difference.</summary>
    public long? Group { get; set; }
    /// <summary>Differences after which a run ends.</summary>
    public int Most { get; set; } = 20;
    /// <summary>Differences are appended to this file, one JSON object a line.</summary>
    public string? Out { get; set; }
    /// <summary>Folder with data/ and golden/: real tokenizers, templates and texts.</summary>
    public string Shared { get; set; } = Path.Combine(Root, "..", "shared");
    /// <summary>Folder that holds tokenizers.mjs and its node_modules.</summary>
    public string Modules { get; set; } = Path.Combine(Root, "eng", "fuzz");
    public string Python { get; set; } = "python3";

    public static string Root { get; } = FindRoot();

    private static string FindRoot()
    {
        for (var d = new DirectoryInfo(AppContext.BaseDirectory); d != null; d = d.Parent)
            if (File.Exists(Path.Combine(d.FullName, "Headroom.slnx"))) return d.FullName;
        throw new InvalidOperationException("This runs inside of a checkout.");
    }
}
