namespace Headroom.Core;

/// <summary>
/// Whether a path leads to a file with a beginning and an end. To open a named pipe waits for its other end, a socket
/// cannot be opened, and a device such as /dev/zero never ends: none of them is a recipe, a data set or a model.
/// </summary>
internal static class RegularFile
{
    /// <summary>
    /// Refuses a pipe, socket or device, without opening it. A path that is not there, or is a folder, is left to who
    /// opens it. Checks on Linux alone.
    /// </summary>
    /// <exception cref="HeadroomException">It is one; exit code 2.</exception>
    public static void Check(string path)
    {
        if (path.Length > 0 && FileIdentity.Special(path) is { } kind)
            throw new HeadroomException(
                $"{path} is {kind}, not a file.", "Give a regular file; write what the program gives to one first.");
    }
}
