namespace Headroom.Core;

/// <summary>Headroom's own cache folder: HEADROOM_CACHE, else headroom in the user's cache folder.</summary>
internal static class HeadroomCache
{
    /// <summary>The folder; it need not exist.</summary>
    public static string Folder
    {
        get
        {
            if (Environment.GetEnvironmentVariable("HEADROOM_CACHE") is { Length: > 0 } own)
                return Path.GetFullPath(own);
            // Verified, a home that is not there is "", and the cache would lie in the working folder.
            string profile = Environment.GetFolderPath(
                Environment.SpecialFolder.UserProfile, Environment.SpecialFolderOption.DoNotVerify);
            string user =
                OperatingSystem.IsWindows() ? Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData)
                : OperatingSystem.IsMacOS() ? Path.Combine(profile, "Library", "Caches")
                : Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } xdg ? xdg
                : Path.Combine(profile, ".cache");
            return Path.Combine(user, "headroom");
        }
    }
}
