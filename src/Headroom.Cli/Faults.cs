using Headroom.Core;

namespace Headroom.Cli;

/// <summary>What ended a command, as what a user can act on.</summary>
internal static class Faults
{
    /// <summary>
    /// The fault itself where it is one of ours; else what stands for it. Threads that work together hand over their
    /// faults in an <see cref="AggregateException"/>: of several, one that a user can act on counts.
    /// </summary>
    public static HeadroomException Describe(Exception e)
    {
        Exception[] all = e is AggregateException several ? [.. several.Flatten().InnerExceptions] : [e];
        if (all.OfType<HeadroomException>().FirstOrDefault() is { } ours) return ours;
        if (all.FirstOrDefault(IsFullMemory) is { } full)
            return new(
                "There is not enough memory.",
                "Ask headroom plan what the run needs, and give smaller sizes or a --vram budget.", 1, full);
        if (all.FirstOrDefault(x => x is IOException or UnauthorizedAccessException) is { } file)
            return new(
                file.Message, "Check that the path can be read or written and that the disk is not full.", 1, file);
        if (all.OfType<System.Text.DecoderFallbackException>().FirstOrDefault() is { } bytes)
            return new("Standard input holds bytes that are not UTF-8.", "Convert it to UTF-8.", 2, bytes);
        var first = all[0];
        return new(
            $"{first.GetType().Name}: {first.Message}",
            "This is a fault of Headroom; run again with --verbose and report what it prints.", 1, first);
    }

    // An array longer than the runtime has room for says so as an OutOfMemoryException too, a static constructor hides
    // it.
    private static bool IsFullMemory(Exception e) =>
        e is OutOfMemoryException || e is TypeInitializationException { InnerException: OutOfMemoryException };
}
