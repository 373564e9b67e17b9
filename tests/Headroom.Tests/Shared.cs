namespace Headroom.Tests;

/// <summary>
/// Ground truth and real data that live beside the repository; tests that need them skip, with the reason, where they
/// are absent.
/// </summary>
public static class Shared
{
    /// <summary>This checkout.</summary>
    public static string Checkout { get; } = Find();
    /// <summary>The folder that the checkout lies in.</summary>
    public static string Root { get; } = Directory.GetParent(Checkout)?.FullName ?? Checkout;
    /// <summary>The golden folder: HEADROOM_GOLDEN when set, else ../shared/golden.</summary>
    public static string Golden { get; } =
        Environment.GetEnvironmentVariable("HEADROOM_GOLDEN") is { Length: > 0 } g
            ? g
            : Path.Combine(Root, "shared", "golden");

    /// <summary>Path of a golden file; skips the test when it is not there.</summary>
    public static string GoldenFile(string relative) => Need(Path.Combine(Golden, relative));
    /// <summary>Path under shared/data; skips the test when it is not there.</summary>
    public static string DataFile(string relative) => Need(Path.Combine(Root, "shared", "data", relative));
    /// <summary>Path under shared/cases; skips the test when it is not there.</summary>
    public static string CaseFile(string relative) => Need(Path.Combine(Root, "shared", "cases", relative));

    /// <summary>The folder of the sources; skips the test where it was built from somewhere else.</summary>
    public static string Sources => Need(Path.Combine(Checkout, "src"));

    private static string Need(string path)
    {
        Assert.SkipUnless(
            File.Exists(path) || Directory.Exists(path), $"{Path.GetFileName(path)} is not beside this checkout");
        return path;
    }

    private static string Find()
    {
        for (var d = new DirectoryInfo(AppContext.BaseDirectory); d != null; d = d.Parent)
            if (File.Exists(Path.Combine(d.FullName, "Headroom.slnx"))) return d.FullName;
        return AppContext.BaseDirectory;
    }
}
